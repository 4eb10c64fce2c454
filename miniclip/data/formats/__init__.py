"""One small reader for each caption format."""
