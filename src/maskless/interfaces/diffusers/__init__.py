"""Maskless for users of diffusers: a pipeline, AnchorNet as a model, and blocks for modular pipelines.

docs/integrations.md in the repository shows how each is used. Importing `maskless` does not import this package.
"""
