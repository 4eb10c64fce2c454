"""`python -m benchmarks.gpu`: trains, exports and searches on a GPU and on the CPU, and compares the two."""
