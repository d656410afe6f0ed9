"""The routes: HTTP in, HTTP out."""
