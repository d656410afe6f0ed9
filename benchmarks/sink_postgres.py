"""The Postgres sink against a real broker and server: a backlog of outcomes becomes table rows.

`python -m benchmarks.sink_postgres ROWS --bootstrap ADDRESS --postgres URL [--sinks N]` prints one
line of JSON. The clock runs from the start of the sinks' processes to the moment when the job is
complete in the store, as others read it. The outcomes are those of `benchmarks.sink_csv`. Works in
a database of its own, which is removed at the end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from benchmarks.sink_csv import JOB, environment, filled
from shared.results.postgres import PostgresResults
from shared.settings import KafkaSettings


def measure(
    rows: int, bootstrap: str, postgres: str, *, partitions: int, sinks: int
) -> dict[str, float]:
    """Fill `scores`, run the sinks until the job is complete, count the rows of the table."""
    settings = KafkaSettings(
        bootstrap_servers=bootstrap,
        topic_prefix=f"bench-{uuid.uuid4().hex[:8]}.",
        partitions=partitions,
    )
    with filled(settings, rows), _database(postgres) as url:
        began = time.monotonic()
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "sink", "postgres"],
                env={**os.environ, **environment(settings), "PAIRSCORE_POSTGRES_URL": url},
                stderr=subprocess.DEVNULL,
            )
            for _ in range(sinks)
        ]
        usages, peak = [psutil.Process(process.pid) for process in processes], 0
        with closing(PostgresResults(SecretStr(url))) as results:
            while (job := results.job(JOB)) is None or job.state != "complete":
                ended = any(process.poll() is not None for process in processes)
                if ended or time.monotonic() - began > 60 + rows / 1_000:
                    raise RuntimeError("the sinks do not come to an end")
                peak = max(peak, *(usage.memory_info().rss for usage in usages))
                time.sleep(0.05)
        seconds = time.monotonic() - began
        cpu = sum(sum(usage.cpu_times()[:2]) for usage in usages)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(60) for process in processes]
        found = _count(url)
        if not job.rows == job.scored == found == rows or any(codes):
            raise RuntimeError(f"{found} rows came out of {rows}: {job}, exit codes {codes}")
    return {
        "rows": rows,
        "sinks": sinks,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 1),
        "cpu_seconds": round(cpu, 3),
        "peak_rss_mb": round(peak / 1e6, 1),
    }


@contextmanager
def _database(url: str) -> Iterator[str]:
    """The URL of an empty database of that server."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(url, dbname=name)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM pairscore.scores").fetchone()
        return found[0] if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink_postgres", description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--bootstrap", required=True, help="address of a broker")
    parser.add_argument("--postgres", required=True, help="URL of a database, to begin with")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--sinks", type=int, default=1)
    options = parser.parse_args()
    found = measure(
        options.rows,
        options.bootstrap,
        options.postgres,
        partitions=options.partitions,
        sinks=options.sinks,
    )
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
