"""Ingest: turns a block of records into a stored part, its rejects and its findings."""
