"""Blocks of a model: where their coordinates stand, and their density given the rest."""
