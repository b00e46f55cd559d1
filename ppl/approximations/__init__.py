"""Point estimates and approximations of posteriors: from a model to an ArviZ object, without a Markov chain."""
