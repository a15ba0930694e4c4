"""The frozen networks, each wrapped in one small class, and the code that finds and loads them."""
