"""What goes in: caption formats, images, metadata, splits."""
