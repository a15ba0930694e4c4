"""Ways to edit, ours and others, behind one signature, so that all can be measured alike."""
