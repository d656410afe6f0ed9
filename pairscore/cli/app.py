"""The commands and their options; every option that is a setting is checked by the settings."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pairscore import __version__
from pairscore.settings import (
    BackendName,
    Device,
    FetchSettings,
    Precision,
    Settings,
    load_settings,
)

EXIT_CODES: Final = (
    "Exit codes: 0 all rows written (rows that failed included), 2 bad input or settings, "
    "3 the model or this machine, 130 interrupted, 1 a defect in pairscore."
)

_FETCH: Final = FetchSettings()

# Where each option's value goes in the settings; the names are what a complaint shows.
_SETTINGS: Final = {
    "--model": ("model",),
    "--device": ("device",),
    "--precision": ("precision",),
    "--backend": ("backend",),
    "--batch-size": ("batch_size",),
    "--concurrency": ("fetch", "concurrency"),
    "--timeout": ("fetch", "timeout"),
    "--attempts": ("fetch", "attempts"),
    "--allow-net": ("fetch", "allow_networks"),
}

app = typer.Typer(
    name="pairscore",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)

cache_app = typer.Typer(
    no_args_is_help=True,
    help="Look at what --cache has kept, and forget it.",
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Hugging Face CLIP id, local folder, or `demo`; default openai/clip-vit-base-patch32.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="Where the model runs; default auto.")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="What it computes in; default auto.")
]
BackendOption = Annotated[
    BackendName | None, typer.Option("--backend", help="What runs it; default auto.")
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="DIR|redis://HOST",
        help="Where downloads and embeddings are remembered for the next time; default nowhere.",
        show_default=False,
    ),
]


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"pairscore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback shows it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show and exit."),
    ] = False,
) -> None:
    """Scores how well captions fit their images: every row gets a score or a reason."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def score(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="CSV with a header; UTF-8; plain or .gz.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Result; by default next to INPUT: challenge_set.csv -> challenge_scored.csv.",
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
    model: ModelOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    backend: BackendOption = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images a batch; 0 (default): by device.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", help=f"Downloads at once; default {_FETCH.concurrency}."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", help=f"Seconds one attempt may take, in all; default {_FETCH.timeout:g}."
        ),
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option(
            "--attempts", help=f"How often a URL is asked, in all; default {_FETCH.attempts}."
        ),
    ] = None,
    allow_net: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-net",
            metavar="CIDR",
            help="Network that may be asked though it is not public; repeatable.",
        ),
    ] = None,
    cache: CacheOption = None,
    details: Annotated[
        bool,
        typer.Option("--details", help="Add cosine, caption_truncated, image_sha256, attempts."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run from its .partial file.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output or result columns there are.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Score a CSV of image URLs and captions.

    Writes the same rows in the same order, with `similarity` (CLIP's logits_per_image) and `error`.
    """
    # Imported here, as in the other commands, so that `--help` does not wait for what is not
    # needed.
    from pairscore.cli.score import run_score
    from pairscore.csv_file import prepare

    settings = _settings(
        {
            "--model": model,
            "--device": device,
            "--precision": precision,
            "--backend": backend,
            "--batch-size": batch_size,
            "--concurrency": concurrency,
            "--timeout": timeout,
            "--attempts": attempts,
            "--allow-net": allow_net or None,
        },
        cache=cache,
    )
    plan = prepare(
        source,
        output,
        url_column=url_column,
        caption_column=caption_column,
        delimiter=delimiter,
        details=details,
        resume=resume,
        overwrite=overwrite,
    )
    run_score(plan, settings, as_json=as_json)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the data set goes.")] = Path(
        "demo-data"
    ),
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the data set.")] = 300,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other scenes.")] = 0,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="This machine's name in the URLs; with another one it is served on all addresses.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = 8765,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the data set until Ctrl-C.")
    ] = False,
    then_score: Annotated[
        bool, typer.Option("--score", help="Serve it, score it, and show what came out.")
    ] = False,
) -> None:
    """Make a synthetic data set: coloured shapes, dead links, broken images, odd cells."""
    from pairscore.cli.demo import run_demo

    run_demo(folder, rows=rows, seed=seed, host=host, port=port, serve=serve, then_score=then_score)


@app.command()
def doctor(
    model: ModelOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    backend: BackendOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, devices and the model cache, and what would be used and why."""
    from pairscore.cli.doctor import run_doctor

    given = {
        "--model": model,
        "--device": device,
        "--precision": precision,
        "--backend": backend,
    }
    run_doctor(_settings(given), as_json=as_json)


@cache_app.command("stats")
def cache_stats(
    cache: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how many URLs, images and captions are remembered, and what they take."""
    from pairscore.cli.cache import show_cache

    show_cache(_settings({}, cache=cache), as_json=as_json)


@cache_app.command("clear")
def cache_clear(cache: CacheOption = None) -> None:
    """Forget all of them."""
    from pairscore.cli.cache import clear_cache

    clear_cache(_settings({}, cache=cache))


def _settings(given: dict[str, Any], *, cache: str | None = None) -> Settings:
    overrides: dict[str, Any] = {}
    for option, value in given.items():
        if value is None:
            continue
        *groups, name = _SETTINGS[option]
        target = overrides
        for group in groups:
            target = target.setdefault(group, {})
        target[name] = value
    named = {_SETTINGS[option]: option for option, value in given.items() if value is not None}
    if cache is not None:
        in_redis = "://" in cache
        overrides["cache"] = {"folder": None if in_redis else cache}
        if in_redis:
            overrides["redis"] = {"url": cache}
        named["cache", "folder"] = named["redis", "url"] = "--cache"
    return load_settings(overrides, option_names=named)
