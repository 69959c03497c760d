"""Runs when Python starts: this folder is on PYTHONPATH of servers under chaos, and of their workers."""

from chaos.inject import install

install()
