"""The `miniclip` command: one module a command."""
