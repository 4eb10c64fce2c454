"""All tests. Two workers on two cores: one thread each, chosen before anything that computes is imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
