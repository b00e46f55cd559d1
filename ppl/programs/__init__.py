"""Traced programs: what depends on what, and how to cut, compare and rewrite them."""
