"""The inpainting models: each family implements the same protocol."""
