"""Training: captions and images in, a run folder out. `python -m train --help`."""
