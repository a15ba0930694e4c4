"""Where to edit: finds the region of an edit in a picture, before anything is drawn."""
