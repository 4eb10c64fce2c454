"""The `miniclip` command, with one module for each subcommand."""
