"""The drawn world: scenes, their captions, their edits."""
