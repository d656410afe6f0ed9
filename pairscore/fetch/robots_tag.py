"""What an image's `X-Robots-Tag` forbids: that models are made of it. Pure.

No standard describes the field. Its form is the one that MDN and Google give; the two directives
are what sites send and img2dataset heeds.
"""

import re
from collections.abc import Sequence
from typing import Final

_OPT_OUTS: Final = frozenset({"noai", "noimageai"})
_PREFIX: Final = re.compile(r"([\w.*-]+)\s*:\s*(.*)", re.ASCII | re.DOTALL)
# They look like the name of an agent, and are none.
_VALUED: Final = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)


def opted_out(values: Sequence[str], agent: str) -> str | None:
    """The directive that opts out of machine learning, `noai` or `noimageai`; None without one.

    `values` are those of the field, one for each line. What comes after the name of an agent, up to
    the next name or the end of the line, is only for that one: it counts if that is `agent`.
    """
    addressed = {agent.lower(), "*"}
    for value in values:
        meant = True
        for item in value.lower().split(","):
            directive = item.strip()
            named = _PREFIX.fullmatch(directive)
            if named and named[1] not in _VALUED:
                meant = named[1] in addressed
                directive = named[2]
            if meant and directive in _OPT_OUTS:
                return directive
    return None
