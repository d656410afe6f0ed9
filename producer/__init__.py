"""CSV rows or API requests become messages on the topic `pairs`."""
