"""``budget tradeoff``: what compute buys, measured: several methods and prices, one table, one picture."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from agents.cli.arguments import FileOptions, flat, parse, say, write_resolved
from agents.cli.paths import require_folder
from agents.cli.report import report


def run(arguments: Sequence[str]) -> int:
    """Train and compare as ``arguments`` say; return the exit code."""
    from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

    where = Annotated[
        Path | None, tyro.conf.arg(aliases=["--folder"], help="folder of the run; by default runs/<time>-tradeoff.")
    ]
    label = Annotated[
        str | None, tyro.conf.arg(help="a name that the rows of table and picture begin with; by default none.")
    ]
    form = dataclasses.make_dataclass(
        "Options",
        [
            ("setup", flat(TradeoffConfig), dataclasses.field(default_factory=TradeoffConfig)),
            ("run", where, None),
            ("label", label, None),
            ("file", flat(FileOptions), dataclasses.field(default_factory=FileOptions)),
        ],
        frozen=True,
    )
    options = parse(form, arguments, "budget tradeoff", TradeoffConfig.__doc__ or "")
    if options.file.dry_run:
        write_resolved(options)
        return 0
    require_folder(options.run, "folder")
    folder = options.run or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-tradeoff"
    try:
        run_tradeoff(options.setup, folder)
    except KeyboardInterrupt:
        say(f"\nWhat was finished is kept. Go on with the same options and --folder {folder}")
        raise
    return report([folder], labels=[options.label] if options.label else [])
