"""Students of large-only, end to end on a study of a few hundred steps."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from agents.replay.dataset import open_dataset
from benchmarks.asymmetric import students, study, tables
from benchmarks.card import store

pytest.importorskip("minari")

TASK, STEPS, SEED = "mountain-car", 300, 4


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep everything in a folder of the test, and episodes at 60 steps."""
    settings_of = study.settings_of

    def shortened(task: str, changes: dict[str, Any]) -> Any:
        config, recipe = settings_of(task, changes)
        return dataclasses.replace(config, max_episode_steps=60, checkpoint_every=60, eval_every=150), recipe

    monkeypatch.setattr(study, "settings_of", shortened)
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(study, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "results")
    monkeypatch.setitem(study.EPISODES, TASK, 2)
    monkeypatch.setattr(students, "DEMONSTRATIONS", {"episodes": 3, "pairs": 50})
    monkeypatch.setattr(students, "CLONING_UPDATES", 100)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    # 2·(2·H + H² + 2·H) = 2·10·14 = 280 FLOPs a step on average: H = 10.
    final = {"raw_return": -1.0, "flops_per_step": 280.0, "share_large": 0.1}
    record = {"method": "asymmetric", "seed": SEED, "run": {"steps": STEPS}}
    finals = {"deterministic": final, "stochastic": final}
    store(tmp_path / "results" / TASK / f"asymmetric-{STEPS}-seed{SEED}.json", {**record, "final": finals})
    return tmp_path


def stored(method: str, train: Any) -> dict[str, Any]:
    """Train one method as its command does and return the record as it is stored."""
    name = f"{method}-{STEPS}-seed{SEED}"
    record = train(TASK, method, SEED, {"steps": STEPS}, study.RUNS / TASK / name)
    return json.loads(store(study.FOLDER / TASK / f"{name}.json", record).read_text())


def test_both_students_are_trained_of_the_size_of_fit_and_tabulated() -> None:
    teacher = stored("large-only", study.train)
    gail, cloned = (stored(method, students.train) for method in ("gail", "bc"))
    for student in (gail, cloned):
        assert student["settings"]["net_arch"] == [10, 10]
        assert student["run"] == teacher["run"]
        assert student["demonstrations"]["teacher"] == f"large-only-{STEPS}-seed{SEED}"
        assert student["demonstrations"]["transitions"] == 3 * 50
        assert student["final"].keys() == teacher["final"].keys()
    assert (gail["settings"]["correlated_noise"], gail["settings"]["learning_rate"]) == (0.5, 3e-4)
    assert (gail["updates"], cloned["updates"]) == (STEPS - 100, 100)
    # Cloning has one head: 2·(2·10 + 10² + 10·1) = 260.
    assert [student["final"]["deterministic"]["flops_per_step"] for student in (gail, cloned)] == [280.0, 260.0]
    assert gail["demonstrations"]["dataset"] == f"asymmetric-{TASK}/large-only-{STEPS}-seed{SEED}-v0"
    assert open_dataset(gail["demonstrations"]["dataset"]).total_episodes == 3
    lines = tables.tabulate().splitlines()
    assert lines[2].split(" | ")[5:8] == ["fit", "gail", "bc"]
    expected = [f"{student['final']['deterministic']['raw_return']:.1f} (1)" for student in (gail, cloned)]
    assert lines[4].split(" | ")[6:8] == expected
    # A second call has nothing left to do and says the same.
    again = stored("gail", students.train)
    assert again["final"] == gail["final"]


def test_missing_teacher_is_named_with_the_command_that_trains_it() -> None:
    with pytest.raises(SystemExit, match=r"there is no teacher .* run mountain-car large-only --seed 4 --steps 300"):
        stored("bc", students.train)


def test_teacher_that_is_not_at_its_end_is_refused() -> None:
    name = f"large-only-{STEPS}-seed{SEED}"
    study.train(TASK, "large-only", SEED, {"steps": 120}, study.RUNS / TASK / name)
    with pytest.raises(SystemExit, match="is at step 120 of 300: train it on"):
        stored("bc", students.train)
