"""``budget report``: HTML and PNG from run folders."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agents.cli.arguments import parse, say
from agents.cli.paths import require_folder


@dataclass(frozen=True)
class ReportOptions:
    """Compare the runs of one environment in one table and one picture.

    Attributes:
        runs: folders that ``budget train`` or ``budget tradeoff`` finished.
        out: where the files go, by default the first folder.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path | None = None


def run(arguments: Sequence[str]) -> int:
    """Report as ``arguments`` say; return the exit code."""
    options = parse(ReportOptions, arguments, "budget report", ReportOptions.__doc__ or "")
    require_folder(options.out, "out")
    return report(options.runs, options.out)


def report(folders: Sequence[Path], out: Path | None = None) -> int:
    """Write the report of ``folders``, print its table and return the exit code."""
    from rich.console import Console

    from agents.report.report import terminal_table, write_report
    from agents.report.tradeoff import Comparison
    from budget_wrappers.errors import ConfigError

    if not folders:
        raise ConfigError("runs is empty: expected at least one run folder; name one, such as runs/demo")
    written = write_report(folders, out)
    first = Comparison.read(folders[0])
    table = terminal_table(written.rows, first.env_id, first.convention)
    # Without a terminal, rich takes 80 columns, which cut the table's headings.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    say(f"Picture: {written.picture}   Report: {written.page}")
    return 0
