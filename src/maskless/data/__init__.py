"""The values that flow through an edit, and pure functions on pictures and boxes."""
