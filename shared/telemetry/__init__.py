"""What a service tells of itself: logs, metrics, whether it lives and whether it is ready."""
