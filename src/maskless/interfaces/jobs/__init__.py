"""Edits as jobs, one after the other, for everything that serves more than one client."""
