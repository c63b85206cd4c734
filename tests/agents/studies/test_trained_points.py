"""A point of a comparison is what other commands measure of the same run folder, timed at its own budget."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.report.tradeoff import Comparison
from agents.studies import measuring, trained_points
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

READS = "reads=bexa-sac:8,8@budget_from_observation=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=("bexa-sac:8,8", READS, "coin"),
        budgets=(0.2, 0.6),
        seeds=(0,),
        steps=60,
        learning_starts=20,
        batch_size=4,
        episodes=1,
        eval_every=60,
        eval_episodes=1,
        workers=1,
    )
    (written,) = run_tradeoff(config, tmp_path_factory.mktemp("points"))
    return written


@pytest.mark.parametrize("label", ["bexa-sac:8,8, b = 0.2", "reads, b = 0.2", "reads, b = 0.6"])
def test_eval_of_the_run_folder_measures_the_same(folder: Path, capsys: pytest.CaptureFixture[str], label: str) -> None:
    (point,) = (one for one in Comparison.read(folder).points if one.label == label)
    budget = [f"--budget={point.extras['budget']}"] if label.startswith("reads") else []
    assert main(["eval", str(folder / point.extras["run"]), "--episodes=1", "--json", *budget]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["raw_return"], found["flops_per_step"]) == (point.mean_return, point.flops_per_step)


def test_a_front_of_eval_measures_each_budget_as_if_it_were_the_only_one(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = str(folder / "runs" / "reads-seed0")
    assert main(["eval", run, "--episodes=1", "--json", "--budget", "0.2", "0.6", "--out", str(tmp_path / "out")]) == 0
    # Nothing but a line for each budget: what is drawn beside it is told on standard error.
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    labels = {point.label: point for point in Comparison.read(folder).points}
    assert [line["raw_return"] for line in lines] == [labels[f"reads, b = {b}"].mean_return for b in ("0.2", "0.6")]


def test_each_budget_is_timed_at_that_budget(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def timed(policy: Any, setup: Any, seed: int, budget: float | None = None) -> float:
        read.append(budget)
        return measuring.microseconds(policy, setup, seed, budget)

    monkeypatch.setattr(trained_points, "microseconds", timed)
    (folder / "runs" / "reads-seed0" / "tradeoff.json").unlink()
    stored = json.loads((folder / "tradeoff.json").read_text())["settings"]
    keys = ("methods", "budgets", "seeds", "steps", "learning_starts", "batch_size", "episodes", "eval_every")
    settings = {key: tuple(stored[key]) if isinstance(stored[key], list) else stored[key] for key in keys}
    run_tradeoff(TradeoffConfig(env=("Pendulum-v1",), eval_episodes=1, workers=1, **settings), folder)
    assert read == [0.2, 0.6]


def test_a_short_training_is_timed_whole(folder: Path) -> None:
    (point,) = (one for one in Comparison.read(folder).points if one.label == "bexa-sac:8,8, b = 0.2")
    rows = [json.loads(line) for line in (folder / point.extras["run"] / "metrics.jsonl").read_text().splitlines()]
    seconds = {row["kind"]: row["clock"]["seconds"] for row in rows}
    assert point.extras["duration_s"] == pytest.approx(seconds["training"] + seconds["evaluation"])


class _Run:
    """A run of 25 steps: rows of training hold the evaluations before them, and nothing was written of the last 5."""

    agent = type("Agent", (), {"num_timesteps": 25})
    told = (("training", 10, 3.0), ("evaluation", 10, 1.0), ("training", 20, 3.0), ("evaluation", 20, 1.5))

    @property
    def folder(self) -> Any:
        return self

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return [{"step": step, "clock": {"seconds": seconds}} for what, step, seconds in self.told if what == kind]


def test_seconds_count_evaluations_once_and_the_steps_after_the_last_row() -> None:
    # 3 + (3 − 1) for 20 steps, so 6.25 for 25, and 2.5 of evaluations.
    assert trained_points.seconds_of(_Run()) == pytest.approx(5 * 25 / 20 + 2.5)
