"""What the three services of the fleet share: messages, topics, Kafka clients, settings, telemetry.

Imports `pairscore`, and none of the services.
"""
