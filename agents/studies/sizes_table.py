"""What a search for sizes found: ``sizes.json``, which has everything, and ``sizes.md``, a table for people."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.report.report import number
from agents.report.tradeoff import TradeoffPoint
from agents.runs.log import provenance, write_sealed
from agents.studies.sizing import Sizes, percent
from budget_wrappers.files import write_text

FILE_NAME, TABLE_NAME = "sizes.json", "sizes.md"
FORMAT = 1

LAYERS = 2
"""Hidden layers of each network, as published."""


@dataclass(frozen=True)
class SizesStudy:
    """The choice and what it rests on.

    Attributes:
        env_id: what was trained on.
        sizes: the choice.
        points: of each width that was trained, one a seed.
        random: mean return of random actions.
        criterion: units whose score counts as 1.
        settings: the resolved configuration, JSON-able.
    """

    env_id: str
    sizes: Sizes
    points: Mapping[int, Sequence[TradeoffPoint]]
    random: float
    criterion: int
    settings: Mapping[str, Any]

    @property
    def cost_ratio(self) -> float | None:
        """FLOPs of the large policy over those of the small one, ``None`` where one of them is missing."""
        if self.sizes.large is None or self.sizes.small is None:
            return None
        return self.flops(self.sizes.large) / self.flops(self.sizes.small)

    def flops(self, width: int) -> float:
        """Return FLOPs of one action, in the ``matmul`` convention, as the meter counted them while evaluating."""
        return self.points[width][0].flops_per_step

    def verdict(self, width: int) -> str:
        """Return what a width is chosen for."""
        sizes = {"criterion": self.criterion, "large": self.sizes.large, "small": self.sizes.small}
        return ", ".join(name for name, units in sizes.items() if units == width)

    def rows(self) -> list[dict[str, Any]]:
        """Return what there is about each width, the narrowest first.

        ``std`` is the sample standard deviation over seeds, ``None`` for one seed.
        """
        rows = []
        for width in sorted(self.points):
            returns = {point.seed: point.mean_return for point in self.points[width]}
            row = {
                "width": width,
                "net_arch": [width] * LAYERS,
                "flops_per_action": self.flops(width),
                "return": statistics.fmean(returns.values()),
                "std": statistics.stdev(returns.values()) if len(returns) > 1 else None,
                "n": len(returns),
                "return_by_seed": {str(seed): value for seed, value in returns.items()},
                "share": self.sizes.shares.get(width),
                "verdict": self.verdict(width),
            }
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        sizes = self.sizes
        choice = {
            "large": sizes.large,
            "small": sizes.small,
            "cost_ratio": self.cost_ratio,
            "large_reason": sizes.large_reason,
            "small_reason": sizes.small_reason,
        }
        return {
            "format": FORMAT,
            "env_id": self.env_id,
            "convention": "matmul",
            "random_return": self.random,
            "widths": self.rows(),
            "choice": choice,
            "settings": dict(self.settings),
            **provenance(None),
        }

    def markdown(self) -> str:
        """Return the table, and the choice in words."""
        settings, sizes = self.settings, self.sizes
        seeds, steps, episodes = ", ".join(map(str, settings["seeds"])), settings["steps"], settings["episodes"]
        ratio = "" if self.cost_ratio is None else f"; FLOPs(large) / FLOPs(small) = {self.cost_ratio:.1f}"
        lines = [
            f"# Sizes of the sub-policies: {self.env_id}",
            "",
            f"SAC, {LAYERS} hidden layers, {steps:,} steps, seeds {seeds}. Return: mean ± standard deviation over",
            f"seeds (their number) of {episodes} seeded episodes without noise. Share: the return on a scale",
            f"where random actions, {number(self.random)}, are 0 and the criterion is 1. FLOPs: `matmul` convention.",
            "",
            "| width | FLOPs per action | return | share of the criterion | verdict |",
            "|---:|---:|---:|---:|---|",
            *("| " + " | ".join(cells(row)) + " |" for row in self.rows()),
            "",
            f"- large: {width_text(sizes.large)}, as {sizes.large_reason}.",
            f"- small: {width_text(sizes.small)}, as {sizes.small_reason}{ratio}.",
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write both files into ``folder``, each whole or not at all."""
        write_sealed(folder / FILE_NAME, self.to_dict())
        write_text(folder / TABLE_NAME, self.markdown())


def width_text(width: int | None) -> str:
    """Return a width in words."""
    return "none" if width is None else f"{width} units" if width != 1 else "1 unit"


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts of one table row."""
    deviation = "" if row["std"] is None else f" ± {number(row['std'])}"
    share = "–" if row["share"] is None else percent(row["share"])
    return (
        str(row["width"]),
        f"{row['flops_per_action']:,.0f}",
        f"{number(row['return'])}{deviation} ({row['n']})",
        share,
        row["verdict"],
    )
