"""Faults on purpose: kills, lost replies, bad lines and bad bytes, and a ledger that counts what they cost.

`python -m chaos` (make chaos) runs everything; the tests here are a part of it that takes minutes.
"""
