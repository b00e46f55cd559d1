"""Differentiation by Enzyme, of the compiled program instead of the traced one."""
