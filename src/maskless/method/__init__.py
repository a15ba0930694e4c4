"""The method: anchors, AnchorNet, losses, search and ranking. Pure torch; no encoder and no file is in sight."""
