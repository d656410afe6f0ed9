"""Rows on `pairs` become outcomes on `scores`, each exactly once."""
