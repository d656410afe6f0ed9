"""`python -m sink`."""

from shared.service import end_process
from sink.cli import main

if __name__ == "__main__":
    end_process(main())
