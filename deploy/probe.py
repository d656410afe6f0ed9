"""Whether the service in this container can work: `python probe.py` ends with 0 or 1.

For Docker's HEALTHCHECK; Kubernetes asks /livez and /readyz itself. Of the standard library alone.
"""

import os
import sys
import urllib.error
import urllib.request

SECONDS = 4.0


def main() -> int:
    """Ask /readyz of this container's service; say what it says."""
    port = os.environ.get("PAIRSCORE_TELEMETRY__PORT") or "9464"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=SECONDS) as answer:
            said, code = answer.read(), 0
    except urllib.error.HTTPError as error:
        said, code = error.read(), 1
    except OSError as error:
        said, code = str(error).encode(), 1
    sys.stdout.write(said.decode(errors="replace").strip() + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
