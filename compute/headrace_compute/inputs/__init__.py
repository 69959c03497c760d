"""Inputs: what runs and readers take from stored tables, and the DuckDB session that they query it in."""
