"""The CSV sink: outcomes gather in a spool; a complete job becomes a file beside its manifest."""
