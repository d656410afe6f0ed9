"""What a call of the API may end with; the text of each is one line, and has no key in it.

PairscoreError
├── ApiError           the API answered, and not with what was asked for
├── Unfinished         outcomes are missing when no more time is to be spent
├── InputError         an argument or a file that cannot be sent
└── EnvironmentFault   TLS, or a file that cannot be written
    └── NoAnswer       no answer, or one that broke off
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pairscore.client.answers import Pending
from pairscore.errors import EnvironmentFault, PairscoreError
from pairscore.pair import Outcome


@dataclass(eq=False)
class ApiError(PairscoreError):
    """The API's own words (RFC 9457), as far as it was the API that answered.

    `type` is `urn:pairscore:problem:KIND` and stays the same for ever; it is empty where something
    else answered, such as a proxy. `row` is the 0-based index of the first bad row in what was
    sent, `line` the 1-based line of a file, `retry_after` how many seconds to wait.
    """

    exit_code: ClassVar[int] = 3

    status: int
    detail: str
    type: str = ""
    title: str = ""
    request_id: str = ""
    row: int | None = None
    line: int | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        super().__init__(self.status, self.detail)  # what it is pickled by

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.detail} (HTTP {self.status}{request})"


class NoAnswer(EnvironmentFault):
    """No whole answer came. `sent` is whether the API may have had the request all the same."""

    def __init__(self, line: str, sent: bool = True) -> None:
        super().__init__(line)
        self.sent = sent


class Unfinished(PairscoreError):
    """Outcomes are missing. `outcomes` has those of `Client.score` so far, and where others come.

    Their rows are scored all the same, and can be asked for later.
    """

    def __init__(self, line: str, outcomes: Sequence[Outcome | Pending] = ()) -> None:
        super().__init__(line)
        self.outcomes = list(outcomes)
