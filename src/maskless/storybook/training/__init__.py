"""The training of the bundled models: one module for each part, with the names that `loop.Task` lists."""
