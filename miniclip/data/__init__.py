"""Input data: caption formats, images, metadata, splits."""
