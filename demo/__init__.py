"""The search page: a bundle and an index in, Gradio out. `python -m demo --help`."""
