"""How schemathesis sends what it has no serializer for; it loads this by its name."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A text, or what JSON would be where it is to be none."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
