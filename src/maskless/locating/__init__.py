"""Where to edit: what is read from a picture before anything is drawn."""
