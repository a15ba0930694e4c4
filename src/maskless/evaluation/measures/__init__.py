"""Figures of an edited picture, and how they are kept, averaged and shown."""
