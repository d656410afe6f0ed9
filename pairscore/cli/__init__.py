"""The `pairscore` command: options in, lines for people or programs and exit codes out."""
