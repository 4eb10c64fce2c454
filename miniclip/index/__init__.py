"""A folder of images becomes a table of embeddings, and stays up to date."""
