"""The HTTP API: who may call it, how much, and what comes of it."""
