"""The dual encoder in PyTorch: backbones, heads, checkpoints. Everything here needs torch but the config."""
