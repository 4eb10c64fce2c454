"""`python -m miniclip`, the same as the `miniclip` command."""

from miniclip.cli.main import main

main()
