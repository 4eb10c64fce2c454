"""Bundles on onnxruntime: towers, tokenizer, score calibration. No torch."""
