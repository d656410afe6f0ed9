"""The results store in PostgreSQL: how to reach it, its schema, its read side."""

from shared.results.postgres.connection import Address
from shared.results.postgres.results import PostgresResults
from shared.results.postgres.schema import prepare

__all__ = ["Address", "PostgresResults", "prepare"]
