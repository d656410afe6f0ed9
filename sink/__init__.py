"""Outcomes on `scores` become a CSV file or rows of a database, each exactly once."""
