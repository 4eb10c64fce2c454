"""Parity and speed of a bundle: `python -m export.benchmark`."""
