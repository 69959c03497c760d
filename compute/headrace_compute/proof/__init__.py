"""Proof of origin: whether the rows of a version are those that its lineage gives."""
