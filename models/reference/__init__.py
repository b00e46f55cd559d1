"""Models of the reference posteriors of posteriordb and the Inference Gym, written as a user would write them."""
