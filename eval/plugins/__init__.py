"""Doors to other people's harnesses: what they load, and how our answers get to them. See README.md here."""
