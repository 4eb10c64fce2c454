"""MiniCLIP: small CLIP-style dual encoders, their ONNX bundles, and search over images."""

__version__ = "0.1.0"
