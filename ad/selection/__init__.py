"""Reverse mode past a selection: what a `where` does not take has no influence; `fences` says how."""
