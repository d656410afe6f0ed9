"""The commands and their options; every option that is a setting is checked by the settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from pairscore.errors import InputError

PROGRAM: Final = "python -m producer"
EXIT_CODES: Final = (
    "Exit codes: 0 all rows published (and with --wait, all outcomes stored, failures included) or "
    "the job cancelled, 2 bad input or settings, 3 Kafka, the results store or this machine, "
    "130 interrupted, 1 a defect in pairscore."
)

app = typer.Typer(
    name=PROGRAM,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


@app.callback()
def _root(context: typer.Context) -> None:
    """Publishes rows for the workers to score."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("csv")
def publish_csv(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="CSV with a header; UTF-8; plain or .gz.")
    ],
    job: Annotated[
        str | None,
        typer.Option("--job", help="Name of the job; else of the file's name and content."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all outcomes are stored, and show them come.")
    ] = False,
    limit_rate: Annotated[
        float | None, typer.Option("--limit-rate", metavar="ROWS", help="Rows a second at most.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="TIME",
            help="When all of it is wanted, such as 06:00: the fleet is scaled by it, where "
            "scaling goes by pairscore_required_workers.",
        ),
    ] = None,
    url_column: Annotated[
        str | None, typer.Option("--url-column", help="Column of image URLs; else guessed.")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option("--caption-column", help="Column of captions; else guessed.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", help="One character; else sniffed.")
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="The result also has cosine, caption_truncated, image_sha256, attempts.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Result columns take the place of the input's own.")
    ] = False,
) -> int:
    """Publish a CSV of image URLs and captions as a job.

    Interrupted or killed, the same command goes on with the next row; a job that is published whole
    is not published again.
    """
    # Imported here, so that `--help` does not wait for what is not needed.
    from producer.csv_command import CsvOptions, run_csv
    from shared.settings import ProducerSettings, read_service_settings

    given = {} if limit_rate is None else {"producer": {"limit_rate": limit_rate}}
    settings = read_service_settings(
        ProducerSettings, given, option_names={("producer", "limit_rate"): "--limit-rate"}
    )
    options = CsvOptions(
        source=source,
        job=job,
        wait=wait,
        url_column=url_column,
        caption_column=caption_column,
        delimiter=delimiter,
        details=details,
        overwrite=overwrite,
        deadline=deadline,
    )
    run_csv(options, settings)
    return 0


keys = typer.Typer(
    name="keys",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keys)

KeyFileOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--file",
        metavar="PATH",
        envvar="PAIRSCORE_API__KEYS",
        help="The file of keys, which are hashed.",
    ),
]


@keys.callback()
def _keys(context: typer.Context) -> None:
    """Add, list and revoke keys that the API is called with; it sees changes by itself."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@keys.command("add")
def add_key(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Name of who it belongs to.")],
    file: KeyFileOption,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", metavar="N", min=1, max=36_500, help="Good for so long; else for ever."
        ),
    ] = None,
    rows_per_second: Annotated[
        float | None, typer.Option("--rows-per-second", metavar="N", min=0, help="0: any number.")
    ] = None,
    requests_per_second: Annotated[
        float | None,
        typer.Option("--requests-per-second", metavar="N", min=0, help="0: any number."),
    ] = None,
    rows_per_day: Annotated[
        int | None,
        typer.Option("--rows-per-day", metavar="N", min=0, help="Of a UTC day; 0: any number."),
    ] = None,
    all_jobs: Annotated[
        bool | None,
        typer.Option("--all-jobs/--own-jobs", help="Whether it sees the jobs of all clients."),
    ] = None,
) -> int:
    """Add a key and print its secret.

    The secret is not kept and cannot be shown again. A client may have several keys; limits and
    rights are those of its newest one, which has them from the one before where nothing else is
    given. To rotate a key: add one, have the client use it, revoke the old one.
    """
    from producer.api.keys_command import Wanted, add_key

    wanted = Wanted(
        client=client,
        days=days,
        requests_per_second=requests_per_second,
        rows_per_second=rows_per_second,
        rows_per_day=rows_per_day,
        all_jobs=all_jobs,
    )
    typer.echo(add_key(file.expanduser(), wanted))
    return 0


@keys.command("list")
def list_keys(file: KeyFileOption) -> int:
    """Show all keys, with the limits of their clients."""
    from producer.api.keys_command import list_keys

    for line in list_keys(file.expanduser()):
        typer.echo(line)
    return 0


@keys.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(metavar="ID", help="The id of a key, as listed.")],
    file: KeyFileOption,
) -> int:
    """Take a key away; the API sees that within a second."""
    from producer.api.keys_command import revoke_key

    revoked = revoke_key(file.expanduser(), name)
    typer.echo(f"revoked {revoked.id} of {revoked.client}", err=True)
    return 0


@app.command("api")
def serve_api(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port; default 8080, 0 for any free one.")
    ] = None,
) -> int:
    """Serve the HTTP API: requests in, scores out, in line or later.

    SIGTERM ends it in order: requests that are under way are finished.
    """
    from producer.api.command import run_api
    from shared.settings import ProducerSettings, read_service_settings

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = read_service_settings(
        ProducerSettings,
        {"api": given} if given else {},
        option_names={("api", name): f"--{name}" for name in ("host", "port")},
    )
    run_api(settings)
    return 0


@app.command("cancel")
def cancel_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")],
) -> int:
    """Cancel what is not scored yet of a job: it comes out as `cancelled`, and nothing undoes it.

    A producer that still publishes the job goes on, so that the job can be completed: its rows come
    out as `cancelled` too.
    """
    from producer.cancel_command import run_cancel
    from shared.settings import ServiceSettings, read_service_settings

    run_cancel(job, read_service_settings(ServiceSettings))
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run the command with `arguments`; the exit code.

    Raises:
        PairscoreError: a dead end, wrong usage included.
    """
    try:
        # Typer turns a KeyboardInterrupt into the exit code 130.
        result = typer.main.get_command(app).main(
            args=list(arguments), prog_name=PROGRAM, standalone_mode=False
        )
    except typer.TyperException as error:
        line = error.format_message().replace("Value error, ", "")
        raise InputError(f"{line} (see {PROGRAM} --help)") from None
    return result if isinstance(result, int) else 0
