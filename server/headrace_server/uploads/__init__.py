"""Uploads: sessions, from a client's stream to one table version."""
