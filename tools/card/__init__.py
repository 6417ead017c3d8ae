"""`python -m tools.card`: the model card of a run, every figure with the file that it is from."""
