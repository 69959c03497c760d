"""Headrace's gRPC server: sessions, commits, events, health."""
