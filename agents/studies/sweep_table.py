"""What a random search found: ``sweep.json``, which has everything, and ``sweep.md``, a table for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.report.report import number as shown
from agents.runs.log import provenance, write_sealed
from budget_wrappers.files import write_text
from budget_wrappers.functional.intervals import bootstrap_interval, interquartile_mean

FILE_NAME, TABLE_NAME = "sweep.json", "sweep.md"
FORMAT = 1
LEVEL = 0.95


@dataclass(frozen=True)
class SweepStudy:
    """The ranking and what it rests on.

    Attributes:
        agent: that was trained.
        env_id: what it was trained on.
        settings: of each configuration, without a seed.
        scores: return over the whole training of each configuration, by seed.
        flops: acting FLOPs a step of each configuration's final policies, ``matmul`` convention.
        finalists: configurations that got every seed, best on the first seed first.
        diverged: configurations that did not reach the end of a training, and why; none of them wins.
        search: the other settings of the search.
    """

    agent: str
    env_id: str
    settings: Mapping[int, Mapping[str, Any]]
    scores: Mapping[int, Mapping[int, float]]
    flops: Mapping[int, float]
    finalists: tuple[int, ...]
    search: Mapping[str, Any]
    diverged: Mapping[int, str] = field(default_factory=dict)

    @property
    def winner(self) -> int | None:
        """The finalist of the highest mean score over its seeds; ``None`` where each diverged on one of them."""
        sound = [number for number in self.finalists if number not in self.diverged]
        return max(sound, key=lambda number: np.mean(list(self.scores[number].values())), default=None)

    def row(self, number: int) -> dict[str, Any]:
        """Return one configuration: its settings, scores, mean and interval over its seeds."""
        scores = list(self.scores[number].values())
        return {
            "configuration": number,
            "settings": dict(self.settings[number]),
            "scores": {str(seed): score for seed, score in self.scores[number].items()},
            "mean": float(np.mean(scores)),
            "interquartile_mean": float(interquartile_mean(scores)),
            "interval": list(bootstrap_interval(scores, interquartile_mean, level=LEVEL)),
            "flops_per_step": self.flops[number],
            "finalist": number in self.finalists,
        } | ({"diverged": self.diverged[number]} if number in self.diverged else {})

    def rows(self) -> list[dict[str, Any]]:
        """Return all configurations with a score: finalists first, by mean, then the others, the diverged last."""
        rows = [self.row(number) for number in self.scores]
        return sorted(rows, key=lambda row: ("diverged" in row, not row["finalist"], -row["mean"]))

    def over_all(self) -> dict[str, Any]:
        """Return the interquartile mean of all configurations on the first seed, as one task with its interval."""
        first = self.search["seeds"][0]
        scores = [scores[first] for scores in self.scores.values()]
        return {
            "interquartile_mean": float(interquartile_mean(scores)),
            "interval": list(bootstrap_interval(scores, interquartile_mean, level=LEVEL)),
        }

    def write(self, folder: Path) -> None:
        """Write both files."""
        record = {
            "format": FORMAT,
            "agent": self.agent,
            "env": self.env_id,
            "search": dict(self.search),
            "winner": self.winner,
            "all_configurations": self.over_all(),
            "rows": self.rows(),
            "diverged": {str(number): error for number, error in sorted(self.diverged.items())},
            **provenance(None),
        }
        write_sealed(folder / FILE_NAME, record)
        write_text(folder / TABLE_NAME, self.markdown())

    def markdown(self, most: int = 20) -> str:
        """Return the best ``most`` configurations as a Markdown table."""
        rows = self.rows()
        keys = [key for key in rows[0]["settings"] if len({str(row["settings"][key]) for row in rows}) > 1]
        lines = [
            f"{self.agent} on {self.env_id}: {len(rows)} configurations of {self.search['steps']:,} steps, the best "
            f"{len(self.finalists)} on {len(self.search['seeds'])} seeds. Scores are mean returns over the whole "
            f"training; interquartile means with {LEVEL:.0%} bootstrap intervals over seeds. FLOPs are in the `matmul` "
            "convention.",
            "",
            f"| configuration | {' | '.join([*keys, 'seeds', 'mean', 'IQM', 'interval', 'FLOPs a step'])} |",
            f"|{'---|' * (len(keys) + 6)}",
        ]
        for row in rows[:most]:
            name = f"**{row['configuration']}**" if row["configuration"] == self.winner else str(row["configuration"])
            low, high = row["interval"]
            cells = [name, *(f"{row['settings'][key]}" for key in keys), str(len(row["scores"]))]
            cells += [shown(row["mean"]), shown(row["interquartile_mean"]), f"{shown(low)} to {shown(high)}"]
            cells.append(f"{row['flops_per_step']:,.0f}")
            lines.append(f"| {' | '.join(cells)} |")
        if len(rows) > most:
            lines += ["", f"{len(rows) - most} more in `{FILE_NAME}`."]
        if self.diverged:
            named = ", ".join(map(str, sorted(self.diverged)))
            lines += ["", f"{len(self.diverged)} diverged: {named}; why is in `{FILE_NAME}`."]
        return "\n".join(lines) + "\n"
