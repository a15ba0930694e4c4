"""The method: anchors, AnchorNet, losses, search and ranking, as docs/method.md describes them step by step.

Pure torch: the functions take and return tensors, and use no encoder and no file.
"""
