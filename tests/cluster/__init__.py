"""Servers on clusters whose nodes come and go."""
