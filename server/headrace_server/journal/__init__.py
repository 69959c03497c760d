"""Journals: create-only records in the store, and the index of those that are not over."""
