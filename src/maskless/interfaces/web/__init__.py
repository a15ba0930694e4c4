"""The server: its HTTP API, its page and its protection."""
