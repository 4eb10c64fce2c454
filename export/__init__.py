"""Export: a run folder in, an ONNX bundle with a certificate of parity out. `python -m export --help`."""
