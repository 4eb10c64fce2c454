"""Training: captions and pictures in, a run folder out. `python -m train --help`."""
