"""The Postgres sink: outcomes become rows of a table, by as many sinks at once as is liked."""
