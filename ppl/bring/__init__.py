"""Models that were not written in the language: log densities, NumPyro models and Stan programs."""
