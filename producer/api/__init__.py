"""The HTTP API: requests become rows on Kafka, outcomes become answers."""
