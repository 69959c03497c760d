"""Runs: features and training data, from pinned inputs to committed versions."""
