"""Symbolic differentiation: SymPy's derivatives of a traced program, with common subexpressions eliminated."""
