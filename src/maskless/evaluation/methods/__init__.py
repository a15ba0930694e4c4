"""Ways to edit, ours and others, behind one signature, so that all are measured in the same way."""
