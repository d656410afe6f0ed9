"""The `pairscore` command: options in, lines for people (or JSON for programs) and exit codes out."""
