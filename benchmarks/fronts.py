"""Tables and pictures of the stored comparisons, made of their raw data alone.

    python -m benchmarks.fronts

Of each ``results/tradeoff/<name>.json``, a ``tradeoff.json`` of ``budget tradeoff``, it writes ``<name>.md``, with
what the page's first sentences say, and ``<name>.png``.
"""

import shutil
import tempfile
from pathlib import Path

from agents.report.finding import findings
from agents.report.report import write_report
from agents.report.tables import result_headings, result_line
from agents.report.texts import row_label
from agents.report.tradeoff import FILE_NAME, Comparison, interval_note, summarise
from benchmarks.card import RESULTS

FOLDER = RESULTS / "tradeoff"


def stored() -> list[Path]:
    """Return the files of the stored comparisons."""
    return sorted(FOLDER.glob("*.json"))


def read(path: Path) -> Comparison:
    """Return a stored comparison, whatever its file is called."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(path, Path(name) / FILE_NAME)
        return Comparison.read(Path(name))


def markdown(comparison: Comparison) -> str:
    """Return the table of a comparison, cheapest row first, and the sentences above its page."""
    settings = comparison.settings
    rows = summarise(comparison.points, settings.get("random_return"))
    reference = next(row for row in rows if row.reference)
    seeds, episodes = len(settings["seeds"]), settings["episodes"]
    lines = [f"{comparison.env_id}, {seeds} seeds, {episodes} episodes each. `{comparison.command}`", ""]
    headings = ("", *result_headings(rows), "µs an action")
    lines += [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for row in rows:
        times = [point.extras["us_per_action"] for point in row.points if "us_per_action" in point.extras]
        cells = [cell.text.replace("\n", ", ") for cell in result_line(row, reference)]
        cells.append(f"{sum(times) / len(times):.0f}" if times else "–")
        lines.append(f"| {' | '.join([row_label(row), *cells])} |")
    lines += ["", f"{interval_note(rows)}; FLOPs of acting, {comparison.convention} convention.", ""]
    lines += [f"- {sentence}" for sentence in findings(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write them."""
    for path in stored():
        path.with_suffix(".md").write_text(markdown(read(path)))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / path.stem
            folder.mkdir()
            shutil.copy(path, folder / FILE_NAME)
            shutil.copy(write_report([folder]).picture, path.with_suffix(".png"))
        print(path.with_suffix(".md").relative_to(RESULTS))


if __name__ == "__main__":
    main()
