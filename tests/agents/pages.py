"""What a report's page shows, as data: its sentences, its tables, and what a browser would load or run."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agents.report.report import write_report
from agents.report.tradeoff import Comparison, TradeoffPoint

VOID = ("meta", "img")


@dataclass
class Table:
    """One table.

    Attributes:
        headings: of its columns.
        lines: the texts of each row's cells.
    """

    headings: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)

    def row(self, label: str) -> dict[str, str]:
        """Return the cells of the one row whose label is ``label``, by heading."""
        (found,) = [line for line in self.lines if label in line[0].split("\n")]
        return dict(zip(self.headings, found, strict=True))


class Page(HTMLParser):
    """Collects what a reader would see and what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.findings: list[str] = []
        self.tables: list[Table] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.classes: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tips: list[str] = []
        self.policy = ""
        self._here: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += list(named.items())
        self.policy = named["content"] if "http-equiv" in named else self.policy
        if tag == "table":
            self.tables.append(Table())
        if tag in ("th", "td"):
            self._here = []
        if tag == "tr" and self.tables:
            self.tables[-1].lines.append([])
        if named.get("class") == "finding" or (tag == "li" and "findings" in self.classes):
            self._here = []
        if tag not in VOID:
            self.open.append(tag)
            self.classes.append(named.get("class", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        cls = self.classes.pop()
        if tag in ("th", "td") and self._here is not None:
            self.tables[-1].lines[-1].append("\n".join(self._here))
            self._here = None
        if tag == "thead":
            self.tables[-1].headings = self.tables[-1].lines.pop()
        if self._here is not None and (cls == "finding" or tag == "li"):
            self.findings.append("".join(self._here))
            self._here = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text.append(data)
        if self.open and self.open[-1] == "title":
            self.tips.append(data)
        if self._here is not None:
            self._here.append(data)

    @property
    def sentences(self) -> str:
        """All that the page claims above its chart."""
        return " ".join(self.findings)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures that are files, which take most of the time."""

    def blank(rows: Any, *arguments: Any) -> Path:
        (path,) = [one for one in arguments if isinstance(one, Path)]
        path.write_bytes(b"")
        return path

    for name in ("plot_tradeoff", "plot_curves", "plot_cloud"):
        monkeypatch.setattr(f"agents.report.report.{name}", blank)


def seeds(label: str, flops: list[float] | float, returns: list[float], **extras: object) -> list[TradeoffPoint]:
    """Return the points of one row, a seed for each return; of two episodes of ten steps each."""
    costs = flops if isinstance(flops, list) else [flops] * len(returns)
    return [
        TradeoffPoint.from_episodes(
            label.split(",")[0], label, seed, [{"return": value, "flops": 10 * cost, "length": 10}] * 2, extras=extras
        )
        for seed, (value, cost) in enumerate(zip(returns, costs, strict=True))
    ]


def page_of(points: list[TradeoffPoint], folder: Path, **settings: object) -> Page:
    """Return the page of a comparison, through its file, as ``budget report`` writes it."""
    Comparison("Car-v0", points, settings=settings).write(folder)
    return Page(write_report([folder]).page.read_text(encoding="utf-8"))
