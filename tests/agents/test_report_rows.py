"""Rows of a report: runs that differ are never pooled, few seeds are a range, curves end where the table is."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from rich.console import Console

from agents.cli import main
from agents.report.pictures import plot_curves
from agents.report.report import Report, terminal_table, write_report
from agents.report.tradeoff import Comparison, Row, TradeoffPoint, interval_note, summarise
from agents.studies.sweep_table import SweepStudy
from budget_wrappers.errors import ConfigError

RUN = {"env": "Pendulum-v1", "steps": 600, "penalty": 0.0, "n_envs": 1, "eval_every": 200, "log_every": 100}
AGENT = {"learning_rate": 1e-3, "net_arch": [8, 8], "seed": 0}


def run_folder(
    path: Path, title: str, value: float, seed: int = 0, run: Any = None, methods: Any = None, **settings: Any
) -> Path:
    """Write what ``budget train`` leaves for a report, and return the folder."""
    episodes = [{"return": value, "flops": 1000.0, "length": 10}] * 2
    own = {"run": {**RUN, **(run or {})}, "settings": {**AGENT, **settings, "seed": seed}, **(methods or {})}
    path.mkdir()
    point = TradeoffPoint.from_episodes(title, title, seed, episodes)
    Comparison("Pendulum-v1", [point], settings=own).write(path)
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""

    def blank(rows: Any, path: Path, *_: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    monkeypatch.setattr("agents.report.report.plot_tradeoff", blank)


def rows_of(folders: list[Path]) -> dict[str, list[int]]:
    """Return the seeds of each row of the report of ``folders``, by its label."""
    made: Report = write_report(folders, folders[0].parent / "out")
    return {row.label: [point.seed for point in row.points] for row in made.rows}


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "budget": ({"budget": 0.1}, {"budget": 0.5}, "0.1", "0.5"),
    "λ": ({"weight": 0.01}, {"weight": 0.5}, "0.01", "0.5"),
    "widths": ({"net_arch": [8, 8]}, {"net_arch": [64, 64]}, "8×8", "64×64"),
    "steps": ({"run": {"steps": 600}}, {"run": {"steps": 3000}}, "600", "3,000"),
    "a penalty in the environment": ({"run": {"penalty": 0.0}}, {"run": {"penalty": 1e-6}}, "0", "1e-06"),
    "a key of a method": (
        {"methods": {"methods": [{"name": "exits", "budget": 0.1}]}},
        {"methods": {"methods": [{"name": "exits", "budget": 0.4}]}},
        "0.1",
        "0.4",
    ),
    "a number in its last digit": (
        {"learning_rate": 0.1234567},
        {"learning_rate": 0.1234568},
        "0.1234567",
        "0.1234568",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_runs_that_differ_are_rows_whose_labels_say_what_differs(what: str, tmp_path: Path, undrawn: None) -> None:
    first, second, *said = DIFFERENT[what]
    folders = [
        run_folder(tmp_path / "a", "BexaSAC", 7.0, seed=0, **first),
        run_folder(tmp_path / "b", "BexaSAC", 11.0, seed=1, **second),
    ]
    rows = rows_of(folders)
    assert sorted(rows.values()) == [[0], [1]]
    for label, seeds in rows.items():
        assert re.search(rf"= {re.escape(said[seeds[0]])}$", label), label


def test_three_budgets_times_three_seeds_are_three_rows(tmp_path: Path, undrawn: None) -> None:
    folders = [
        run_folder(tmp_path / f"{b}-{seed}", "BexaSAC", b + seed, seed=seed, budget=b)
        for b in (0.1, 0.3, 0.5)
        for seed in (0, 1, 2)
    ]
    assert main(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    assert rows_of(folders) == {f"BexaSAC, b = {b}": [0, 1, 2] for b in (0.1, 0.3, 0.5)}


def test_unequal_steps_of_different_agents_are_said(tmp_path: Path, undrawn: None) -> None:
    folders = [
        run_folder(tmp_path / "a", "SAC", 7.0, run={"steps": 600}),
        run_folder(tmp_path / "b", "TD3", 9.0, run={"steps": 3000}, learning_rate=3e-4),
    ]
    assert set(rows_of(folders)) == {"SAC, steps = 600", "TD3, steps = 3,000"}


def test_how_a_run_was_watched_parts_no_seeds(tmp_path: Path, undrawn: None) -> None:
    folders = [
        run_folder(tmp_path / "a", "SAC", 7.0, seed=0, run={"log_every": 100}),
        run_folder(tmp_path / "b", "SAC", 9.0, seed=1, run={"log_every": 500, "eval_every": 300}),
    ]
    assert rows_of(folders) == {"SAC": [0, 1]}


def test_prices_under_one_label_are_rows_of_their_own() -> None:
    points = [
        TradeoffPoint("m", "m", seed, 1.0 + seed, 10.0, extras={"weight": weight})
        for seed, weight in enumerate((0.01, 0.5))
    ]
    assert sorted(len(row.points) for row in summarise(points)) == [1, 1]


def test_studies_of_different_length_are_not_pooled(tmp_path: Path, undrawn: None) -> None:
    for name, steps, seed in (("a", 600, 0), ("b", 3000, 1)):
        (tmp_path / name).mkdir()
        settings = {"steps": steps, "seeds": [seed], "weights": [0.1], "small": [8], "random_return": -9.0 - seed}
        Comparison("P-v1", [TradeoffPoint("large-only", "large-only", seed, 1.0, 5.0)], settings=settings).write(
            tmp_path / name
        )
    assert rows_of([tmp_path / "a", tmp_path / "b"]) == {
        "large-only, steps = 600": [0],
        "large-only, steps = 3,000": [1],
    }


# ---- the same run twice ---------------------------------------------------------------------------------------------


def test_the_same_run_twice_is_refused_with_a_remedy_that_works(
    tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    one, copy = (run_folder(tmp_path / name, "SAC", 7.0) for name in ("one", "copy"))
    assert main(["report", str(one), str(copy)]) == 2
    message = capsys.readouterr().err
    assert "leave the repeated run out" in message
    assert "--label" in message
    assert main(["report", str(one), str(copy), "--label", "first", "second"]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "second" in shown


def test_one_folder_named_twice_is_refused(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "one", "SAC", 7.0)
    with pytest.raises(ConfigError, match="named twice"):
        write_report([one, tmp_path / "." / "one"])


def test_a_label_pools_no_runs_that_differ(tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        run_folder(tmp_path / str(i), "SAC", 7.0, seed=i, budget=b, run={"log_every": 100 + i})
        for i, b in enumerate((0.1, 0.1, 0.5))
    ]
    assert main(["report", *map(str, folders), "--label", "mine", "mine", "mine"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"mine, b = 0\.1 [*]? *.* 2 ", shown)
    assert re.search(r"mine, b = 0\.5 [*]? *.* 1 ", shown)
    assert main(["report", *map(str, folders), "--label", "mine"]) == 2
    assert "expected 3" in capsys.readouterr().err


# ---- few seeds ------------------------------------------------------------------------------------------------------


def seeds_of(count: int) -> list[Row]:
    return summarise([TradeoffPoint("m", "m", seed, float(seed), 1.0) for seed in range(count)])


def table_of(rows: list[Row]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal_table(rows, "Car"))
    return console.file.getvalue()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_fewer_than_five_seeds_are_a_range_of_all(count: int) -> None:
    rows = seeds_of(count)
    assert (rows[0].low, rows[0].high) == (0.0, count - 1)
    for text in (table_of(rows), interval_note(rows)):
        assert "95" not in text
        assert f"range of {count} seeds" in text


def test_one_seed_has_a_dash_whatever_its_episodes() -> None:
    episodes = [{"return": value, "flops": 1.0, "length": 1} for value in (0.0, 10.0)]
    text = table_of(summarise([TradeoffPoint.from_episodes("m", "m", 0, episodes)]))
    assert "–" in text
    assert "0.000 … 10.0" not in text
    assert "95" not in text


def test_five_seeds_have_students_interval() -> None:
    # 0 … 4: mean 2, s² = 2.5, and 2.7764 · √(2.5/5) = 1.9632.
    (row,) = seeds_of(5)
    assert (row.low, row.high) == pytest.approx((0.0368, 3.9632), abs=1e-4)
    assert "95 % interval" in table_of([row])


def test_seeds_of_a_sweep_are_a_range_and_one_seed_is_a_dash() -> None:
    study = SweepStudy(
        agent="SAC",
        env_id="Car",
        settings={0: {"x": 1}, 1: {"x": 2}},
        scores={0: {0: -878.1, 1: -870.0}, 1: {0: -900.25}},
        flops={0: 10.0, 1: 10.0},
        finalists=(0,),
        search={"seeds": (0, 1), "steps": 100},
    )
    text = study.markdown()
    assert "95" not in text
    assert "range of 2 seeds" in text
    assert "−900.2 to −900.2" not in text
    assert re.search(r"\| 1 \| 2 \| 1 \| −900.2 \| −900.2 \| – \|", text)


# ---- curves ---------------------------------------------------------------------------------------------------------


def drawn(points: list[TradeoffPoint], path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """Return the steps and mean returns that ``plot_curves`` draws of ``points``, one row's."""
    lines: list[tuple[list[float], list[float]]] = []
    plot = Axes.plot

    def remembered(self: Axes, *args: Any, **settings: Any) -> Any:
        lines.append((list(map(float, args[0])), list(map(float, args[1]))))
        return plot(self, *args, **settings)

    monkeypatch.setattr(Axes, "plot", remembered)
    plot_curves(summarise(points), path / "curves.png", "Car")
    return lines[0]


@pytest.mark.parametrize("ends", [(3002, 3000), (3000, 3002), (2998, 3004)])
def test_the_last_evaluation_stays_where_seeds_evaluate_a_few_steps_apart(
    ends: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        TradeoffPoint("m", "m", seed, 1.0, 1.0, curve=[(1001, 0.0), (2003 - seed, 0.0), (end, 100.0 * (seed + 1))])
        for seed, end in enumerate(ends)
    ]
    steps, means = drawn(points, tmp_path, monkeypatch)
    assert steps[-1] == min(ends)
    # 100 and 200 are the last evaluations: neither is dropped, nor mixed with the one before.
    assert means == [0.0, 0.0, 150.0]


def test_seeds_of_two_groups_have_a_curve_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = TradeoffPoint("l", "l", 0, 100.0, 2.0, curve=[(0, 0.0), (10, 100.0)], extras={"baseline": True})
    own = [
        TradeoffPoint("m", "m", seed, value, 1.0, curve=[(0, 0.0), (10, value)])
        for seed, value in enumerate((100.0, 0.0))
    ]
    lines = []
    plot = Axes.plot

    def remembered(self: Axes, *args: Any, **settings: Any) -> Any:
        lines.append(list(map(float, args[1])))
        return plot(self, *args, **settings)

    monkeypatch.setattr(Axes, "plot", remembered)
    plot_curves(summarise([large, *own], 0.0), tmp_path / "curves.png", "Car")
    # Seeds of 100 and 0, and no mean of 50.
    assert lines == [[0.0, 100.0], [0.0, 0.0], [0.0, 100.0]]


def test_a_run_s_curve_ends_at_its_steps_with_the_number_of_its_table(tmp_path: Path) -> None:
    words = [
        "train",
        "sac",
        "--env",
        "Pendulum-v1",
        "--max-episode-steps",
        "25",
        "--batch-size",
        "8",
        "--net-arch",
        "4",
    ]
    words += ["--steps", "75", "--eval-every", "25", "--eval-episodes", "2", "--no-tensorboard"]
    assert main([*words, "--learning-starts", "50", "--run", str(tmp_path / "run")]) == 0
    (point,) = Comparison.read(tmp_path / "run").points
    assert [step for step, _ in point.curve] == [25, 50, 75]
    assert point.curve[-1][1] == pytest.approx(point.mean_return)
    assert len(point.episodes) == 2


def test_evaluations_of_a_comparison_are_at_the_steps_asked_for(tmp_path: Path) -> None:
    from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

    setup = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=("asymmetric:4@small_net_arch=2@hold=7",),
        steps=60,
        seeds=(0,),
        weights=(0.0,),
        learning_starts=200,
        episodes=2,
        eval_every=20,
        workers=1,
    )
    run_tradeoff(setup, tmp_path)
    (point,) = Comparison.read(tmp_path).points
    assert [step for step, _ in point.curve] == [20, 40, 60]
    assert point.curve[-1][1] == pytest.approx(point.mean_return)
