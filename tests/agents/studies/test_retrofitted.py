"""A policy that was trained elsewhere takes part as it is, or with exits beside a student of the same states."""

import dataclasses
from pathlib import Path

import gymnasium as gym
import pytest

from agents import SAC, BexaSAC
from agents.report.tradeoff import Comparison, summarise
from agents.studies.fit import WITHIN
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.errors import ConfigError

FAST = "@steps=200@rounds=2@updates=50"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "trained" / "policy.safetensors"
    path.parent.mkdir()
    agent = SAC(gym.make("Pendulum-v1"), net_arch=(16, 16), buffer_size=100)
    agent.save(path)
    return path


def config(*methods: str) -> TradeoffConfig:
    return TradeoffConfig(
        env=("Pendulum-v1",), methods=methods, seeds=(0, 1), budgets=(0.0, 0.5), episodes=1, workers=1, steps=100
    )


def test_exits_controls_and_student_are_rows_beside_the_policy_as_trained(trained: Path, tmp_path: Path) -> None:
    run_tradeoff(config(f"was=retrofit:{trained}{FAST}", "fit", "coin", "dearest"), tmp_path / "run")
    points = Comparison.read(tmp_path / "run").points
    at_budgets = [f"was, b = {b}" for b in ("0", "0.5")]
    beside = [f"{control} of {row}" for control in ("coin", "dearest", "student") for row in at_budgets]
    # The policy as it was trained is one, whatever the seed of imitation.
    expected = [("was, as trained", 0), *((label, seed) for label in [*at_budgets, *beside] for seed in (0, 1))]
    assert sorted((point.label, point.seed) for point in points) == sorted(expected)
    by_label = {(point.label, point.seed): point for point in points}
    # Exits of one output each after 16 and 32 units: 2·(3·16 + 16·1) and 2·(3·16 + 16·16 + 16·1); one gate of 2·16.
    assert by_label["dearest of was, b = 0.5", 1].flops_per_step == 2 * (3 * 16 + 16 * 16 + 16)
    own, student = by_label["was, b = 0.5", 1], by_label["student of was, b = 0.5", 1]
    assert abs(student.flops_per_step / own.flops_per_step - 1) <= WITHIN
    saved = BudgetedExitPolicy.load(tmp_path / "run" / own.extras["run"] / "budget-0.5.safetensors")
    assert saved.budget == 0.5


def test_what_is_saved_is_saved_of_the_policy_as_trained_and_dense_controls_are_its_students(
    trained: Path, tmp_path: Path
) -> None:
    run_tradeoff(config(f"was=retrofit:{trained}{FAST}", "fit", "dense:4", "dense:8,2"), tmp_path / "run")
    comparison = Comparison.read(tmp_path / "run")
    rows = {row.label: row for row in summarise(comparison.points)}
    assert [label for label, row in rows.items() if row.reference] == ["was, as trained"]
    # A student says the mean alone; SAC's actor says a deviation beside it.
    assert rows["student:4 of was"].flops_per_step == 2 * (3 * 4 + 4 * 4 + 4)
    assert rows["student:8,2 of was"].flops_per_step == 2 * (3 * 8 + 8 * 2 + 2)
    assert {len(rows[f"student:{widths} of was"].points) for widths in ("4", "8,2")} == {2}
    assert all(row.baseline for label, row in rows.items() if "student" in label)


def test_other_budgets_and_controls_are_further_rows_of_the_same_folder(trained: Path, tmp_path: Path) -> None:
    word = f"was=retrofit:{trained}{FAST}"
    first = dataclasses.replace(config(word), budgets=(0.5,), seeds=(0,))
    run_tradeoff(first, tmp_path / "run")
    before = {point.label: point for point in Comparison.read(tmp_path / "run").points}
    run_tradeoff(dataclasses.replace(first, budgets=(0.2, 0.5), methods=(word, "coin")), tmp_path / "run")
    after = {point.label: point for point in Comparison.read(tmp_path / "run").points}
    assert set(after) == {"was, as trained"} | {
        label for b in ("0.2", "0.5") for label in (f"was, b = {b}", f"coin of was, b = {b}")
    }
    assert after["was, as trained"].episodes == before["was, as trained"].episodes


def test_a_policy_is_taken_as_it_is_once(trained: Path, tmp_path: Path) -> None:
    run_tradeoff(config(f"was={trained}", "sac:4@learning_starts=1000"), tmp_path / "run")
    points = Comparison.read(tmp_path / "run").points
    assert [(point.label, point.seed) for point in points] == [("was", 0), ("sac:4", 0), ("sac:4", 1)]
    assert points[0].flops_per_step == 2 * (3 * 16 + 16 * 16 + 16 * 2)


def test_a_policy_that_chooses_has_controls_that_choose_in_its_place(tmp_path: Path) -> None:
    agent = BexaSAC(gym.make("Pendulum-v1"), net_arch=(8, 8), buffer_size=100)
    agent.save(tmp_path / "bexa")
    run_tradeoff(config(f"was={tmp_path / 'bexa.safetensors'}", "coin", "cheapest"), tmp_path / "run")
    points = {point.label: point for point in Comparison.read(tmp_path / "run").points}
    assert set(points) == {"was", "coin of was", "cheapest of was"}
    # Exit 1 is a linear map of 3 numbers to a mean and a deviation.
    assert points["cheapest of was"].flops_per_step == 2 * 3 * 2


def test_what_is_there_is_not_done_again_and_other_settings_are_refused(trained: Path, tmp_path: Path) -> None:
    one = dataclasses.replace(config(f"was=retrofit:{trained}{FAST}"), seeds=(0,))
    run_tradeoff(one, tmp_path / "run")
    before = Comparison.read(tmp_path / "run").points
    run_tradeoff(one, tmp_path / "run")
    assert Comparison.read(tmp_path / "run").points == before
    SAC(gym.make("Pendulum-v1"), net_arch=(16, 16), buffer_size=100, seed=1).save(trained)
    with pytest.raises(ConfigError, match="sha256="):
        run_tradeoff(one, tmp_path / "run")  # another policy has taken the file's place
    with pytest.raises(ConfigError, match="updates=50: expected 60"):
        run_tradeoff(
            dataclasses.replace(one, methods=(f"was=retrofit:{trained}{FAST.replace('50', '60')}",)), tmp_path / "run"
        )


def test_the_policy_itself_is_measured_once_whatever_the_seeds_were_before(trained: Path, tmp_path: Path) -> None:
    both = config(f"was=retrofit:{trained}{FAST}")
    for seeds in ((1,), (0, 1), (1,)):
        run_tradeoff(dataclasses.replace(both, seeds=seeds), tmp_path / "run")
        rows = [(point.label, point.seed) for point in Comparison.read(tmp_path / "run").points]
        assert [label for label, _ in rows].count("was, as trained") == 1
        assert [seed for label, seed in rows if label == "was, b = 0.5"] == list(seeds)


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ("@updtes=5", {}, "did you mean 'updates'"),
        ("@updates=many", {}, "expected numbers"),
        ("@seed=3", {}, "pass --seeds"),
        ("@exit_after=7", {}, "exit_after"),
        (FAST, {"budgets": (-0.5,)}, "budgets"),
        (FAST, {"budgets": ()}, "budgets"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_trained(
    trained: Path, tmp_path: Path, settings: str, changes: dict, said: str
) -> None:
    asked = dataclasses.replace(config("sac:4@learning_starts=1000", f"was=retrofit:{trained}{settings}"), **changes)
    with pytest.raises(ConfigError, match=said):
        run_tradeoff(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_has_exits_already_and_settings_of_a_policy_as_it_is_are_refused_at_once(
    trained: Path, tmp_path: Path
) -> None:
    BexaSAC(gym.make("Pendulum-v1"), net_arch=(8, 8), buffer_size=100).save(tmp_path / "exits.safetensors")
    for method, said in (
        (f"retrofit:{tmp_path / 'exits.safetensors'}", "budget already"),
        (f"{trained}@rounds=2", "no settings"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_tradeoff(config("sac:4@learning_starts=1000", f"was={method}"), tmp_path / "run")
        assert not (tmp_path / "run").exists()
