"""Training data: the core of user-item pairs, sampled negatives, and the run that makes a dataset."""
