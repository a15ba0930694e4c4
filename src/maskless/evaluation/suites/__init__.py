"""What `maskless evaluate NAME` runs: one module for each suite, with `run` and the options that it takes."""
