"""The picture of a run with units, drawn of its metrics alone."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from agents.report.units_chart import networks_in, plot_units


def row(step: int, **units: float) -> dict[str, Any]:
    return {"step": step, "kind": "training", **{f"loss/units/{key}": value for key, value in units.items()}}


TRAINING = [
    row(100, **{"actor/expected": 900.0, "actor/parameters": 1000.0, "actor/layer1": 20.0, "actor/layer2": 16.0}),
    row(200, **{"actor/expected": 400.0, "actor/parameters": 500.0, "actor/layer1": 10.0, "actor/layer2": 12.0}),
]
EVALUATIONS = [{"step": 100, "return": -3.0}, {"step": 200, "return": -1.0}]


def test_return_sizes_and_layers_are_drawn_at_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    path = plot_units(TRAINING, EVALUATIONS, tmp_path / "units.png", "A run")
    assert path == tmp_path / "units.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in drawn[0].axes]
    assert lines == [
        [[[100.0, -3.0], [200.0, -1.0]]],
        [[[100.0, 900.0], [200.0, 400.0]], [[100.0, 1000.0], [200.0, 500.0]]],
        [[[100.0, 20.0], [200.0, 10.0]], [[100.0, 16.0], [200.0, 12.0]]],
    ]
    assert "$" not in "".join(t.get_text() for axes in drawn[0].axes for t in axes.get_yticklabels())


def test_what_acts_comes_first() -> None:
    assert networks_in([row(1, **{"critic/expected": 1.0, "actor/expected": 1.0})]) == ["actor", "critic"]


def test_a_run_without_units_has_no_picture(tmp_path: Path) -> None:
    assert plot_units([{"step": 1, "loss/critic_loss": 0.1}], EVALUATIONS, tmp_path / "units.png", "A run") is None
    assert not (tmp_path / "units.png").exists()
