"""``budget report``: HTML and PNG from run folders."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agents.cli.arguments import parse, say
from agents.cli.paths import require_folder

MOST_SENTENCES = 4
"""Of the page's sentences, the terminal shows as many."""


@dataclass(frozen=True)
class ReportOptions:
    """Compare the runs of one environment in one table and one picture.

    Runs of equal settings are seeds of one row. Runs that differ in anything else are rows of their own, and their
    labels say what differs.

    Attributes:
        runs: folders that ``budget train``, ``budget tradeoff`` or ``budget retrofit`` finished.
        out: where the files go, by default the first folder.
        label: a name for each folder, in the same order, in place of its own; runs of equal names and settings are
            seeds of one row.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path | None = None
    label: tuple[str, ...] = ()


def run(arguments: Sequence[str]) -> int:
    """Report as ``arguments`` say; return the exit code."""
    options = parse(ReportOptions, arguments, "budget report", ReportOptions.__doc__ or "")
    require_folder(options.out, "out")
    return report(options.runs, options.out, options.label)


def units_of(folder: Path) -> Path | None:
    """Draw what the units of a run did, beside its metrics; ``None`` where it had none that learn."""
    from agents.report.units_chart import plot_units
    from agents.runs.records import METRICS, read_rows

    if not (folder / METRICS).is_file():
        return None
    rows = [list(read_rows(folder, kind)) for kind in ("training", "evaluation")]
    return plot_units(*rows, folder / "units.png", f"Units of {folder.name} over its run")


def report(folders: Sequence[Path], out: Path | None = None, labels: Sequence[str] = ()) -> int:
    """Write the report of ``folders``, print its table and return the exit code."""
    from rich.console import Console

    from agents.report.finding import findings
    from agents.report.report import terminal_table, write_report
    from agents.report.tradeoff import Comparison
    from budget_wrappers.errors import ConfigError

    if not folders:
        raise ConfigError("runs is empty: expected at least one run folder; name one, such as runs/demo")
    written = write_report(folders, out, labels)
    first = Comparison.read(folders[0])
    table = terminal_table(written.rows, first.env_id, first.convention)
    # Without a terminal, rich takes 80 columns, which cut the table's headings.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    sentences = findings(written.rows)
    for sentence in sentences[:MOST_SENTENCES]:
        say(f"- {sentence}")
    if len(sentences) > MOST_SENTENCES:
        say(f"- {len(sentences) - MOST_SENTENCES} more on the page.")
    say(f"Picture: {written.picture}   Report: {written.page}")
    for folder in folders:
        if (drawn := units_of(folder)) is not None:
            say(f"Units over the run: {drawn}")
    return 0
