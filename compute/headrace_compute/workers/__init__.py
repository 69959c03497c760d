"""Processes that run stages: the only room that knows Ray, and what decides who of them works for whom."""
