"""What `maskless evaluate NAME` runs: one module for each suite, with a function `run`."""
