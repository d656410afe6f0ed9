"""What a sink has stored, as others read it: jobs and how far they are, outcomes by row.

One module holds the schema of each store and its read side; the sink writes what they declare.
"""

from shared.results.page import Page
from shared.results.status import JobStatus, State, make_status
from shared.results.store import Results, open_results

__all__ = ["JobStatus", "Page", "Results", "State", "make_status", "open_results"]
