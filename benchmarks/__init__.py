"""The measurements in the documents. Run each with `python -m benchmarks.NAME`."""
