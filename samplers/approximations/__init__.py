"""Modes and approximations of a log density by numbers that need no Markov chain."""
