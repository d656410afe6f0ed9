"""The API against its own OpenAPI document: schemathesis sends what it allows and what it does not.

`--long-faults` sends some 5,000 requests, else there are some hundreds.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from producer.api.keys_command import Wanted, add_key
from tests import sinking
from tests.serving import serving_api
from tests.working import Fleet, Told, working

ROOT = Path(__file__).parents[2]
CONFIG = """
# What the document cannot say: which text is a CSV with such columns, or NDJSON of pairs.
[[operations]]
include-operation-id = "{post_job}"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 409, 413, 422, 429, 503]

# Headers that nobody knows are ignored, as HTTP has it.
[[operations]]
include-path = "/v1/snowflake"
generation.allow-extra-parameters = false
"""
EXCLUDED = "use_after_free"  # DELETE cancels a job, which is there still


@pytest.mark.timeout(1200)
def test_every_answer_is_as_documented(kafka, tmp_path, pytestconfig):
    long_faults = pytestconfig.getoption("long_faults", default=False)
    place = sinking.place(kafka.bootstrap_servers, "api-schema.", tmp_path)
    place.results.mkdir(exist_ok=True)
    fleet = Fleet(kafka.bootstrap_servers, "api-schema.")
    keys = tmp_path / "keys.json"
    secret = add_key(
        keys,
        Wanted(
            client="fuzzer",
            days=None,
            requests_per_second=None,
            rows_per_second=None,
            rows_per_day=None,
            all_jobs=None,
        ),
    )
    with (
        working(fleet, Told()),
        place.sink(),
        serving_api(place.settings, place.results, api={"keys": str(keys)}) as api,
    ):
        document = api.get("/v1/openapi.json").json()
        post_job = document["paths"]["/v1/jobs"]["post"]["operationId"]
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG.format(post_job=post_job))
        command = [
            str(Path(sys.executable).parent / "st"),
            f"--config-file={config}",
            "run",
            f"{api.url}/v1/openapi.json",
            "--checks=all",
            f"--exclude-checks={EXCLUDED}",
            f"--max-examples={340 if long_faults else 5}",
            f"--header=Authorization: Bearer {secret}",
            "--request-timeout=90",
            "--continue-on-failure",
            "--no-color",
        ]
        ran = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=1000,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    cases = re.search(r"([\d,]+) generated", ran.stdout)
    assert cases is not None, ran.stdout
    assert int(cases[1].replace(",", "")) >= (5_000 if long_faults else 300)
