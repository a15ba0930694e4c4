"""Each frozen network behind one small class, and how they are loaded."""
