"""A question becomes results."""
