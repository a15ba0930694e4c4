"""The models that draw, each family behind the same protocol."""
