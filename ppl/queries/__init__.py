"""Questions to a model: draws from its prior, predictions, pointwise log densities, changes of coordinates."""
