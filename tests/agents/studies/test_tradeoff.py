"""A comparison is honest about its FLOPs, keeps what is finished, and refuses to mix settings."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from agents.report.tradeoff import Comparison, summarise
from agents.studies import tradeoff
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.errors import CheckpointError, ConfigError, SpaceError

CONFIG = TradeoffConfig(
    steps=60,
    seeds=(0, 1),
    weights=(0.0, 50.0),
    small=(4,),
    large=(8, 8),
    batch_size=8,
    learning_starts=10,
    episodes=1,
    eval_every=30,
    workers=1,
)
# Pendulum: O = 3, A = 1; the master has 2×32 and two values: 2·(3·32 + 32·32 + 32·2) = 2368, once in 5 steps.
SMALL, LARGE, MASTER = 40, 208, 2368 / 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tradeoff")
    run_tradeoff(CONFIG, folder)
    return folder


def test_points_are_every_method_price_and_seed(finished: Path) -> None:
    comparison = Comparison.read(finished)
    assert [(point.label, point.seed) for point in comparison.points] == [
        ("asymmetric, λ = 0", 0),
        ("asymmetric, λ = 0", 1),
        ("asymmetric, λ = 50", 0),
        ("asymmetric, λ = 50", 1),
        ("large-only", 0),
        ("large-only", 1),
        ("small-only", 0),
        ("small-only", 1),
    ]
    assert [row.label for row in summarise(comparison.points) if row.reference] == ["large-only"]


def test_flops_are_those_that_ran_the_master_s_included(finished: Path) -> None:
    for point in Comparison.read(finished).points:
        share = point.extras.get("share_large")
        expected = {
            "small-only": SMALL,
            "large-only": LARGE,
            "asymmetric": None if share is None else MASTER + share * LARGE + (1 - share) * SMALL,
        }[point.method]
        assert point.flops_per_step == pytest.approx(expected)
        assert point.extras["baseline"] == (point.method != "asymmetric")


def test_point_holds_both_evaluations_and_the_curve(finished: Path) -> None:
    for point in Comparison.read(finished).points:
        assert [step for step, _ in point.curve] == [30, 60]
        assert point.extras["evaluation"] == "deterministic"
        assert point.extras["stochastic_return"] < 0
        assert point.extras["train_learn_flops"] > 0


def test_second_run_trains_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "train_point", None)
    before = Comparison.read(finished)
    assert run_tradeoff(CONFIG, finished) == list(before.points)


def test_interrupted_run_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, trained = tradeoff.train_point, []

    def interrupted(job: Any, advance: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(job)
        return train(job, advance)

    monkeypatch.setattr(tradeoff, "train_point", interrupted)
    config = dataclasses.replace(CONFIG, weights=(), seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        run_tradeoff(config, tmp_path)
    assert not (tmp_path / "tradeoff.json").exists()
    trained.clear()
    assert len(run_tradeoff(config, tmp_path)) == 4
    assert [job.method for job in trained] == ["small-only", "small-only"]


def test_seeds_and_prices_can_be_added(finished: Path) -> None:
    more = dataclasses.replace(CONFIG, seeds=(0, 1, 2), weights=(0.0, 50.0))
    done = {point.seed for point in run_tradeoff(CONFIG, finished)}
    jobs = [job for job in more.jobs() if job.seed not in done]
    assert {job.seed for job in jobs} == {2}
    # What is there is no other job's: the settings of a point do not name the other seeds and prices.
    assert [job for job in more.jobs() if job.seed in done] == CONFIG.jobs()


def test_other_settings_in_the_same_folder_are_refused(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=8: expected 16.*choose another folder"):
        run_tradeoff(dataclasses.replace(CONFIG, batch_size=16), finished)


def test_damaged_point_is_named(tmp_path: Path, finished: Path) -> None:
    job = CONFIG.jobs()[0]
    path = tmp_path / "points" / job.file
    path.parent.mkdir()
    path.write_text((finished / "points" / job.file).read_text()[:-40])
    with pytest.raises(CheckpointError, match=f"{job.file} is not a point .*delete it"):
        run_tradeoff(CONFIG, tmp_path)


def test_workers_measure_what_one_process_does(finished: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, weights=(50.0,), seeds=(0,), workers=2)
    points = run_tradeoff(config, tmp_path, progress=False)
    here = {(point.label, point.seed): point for point in Comparison.read(finished).points}
    assert points == [here[point.label, point.seed] for point in points]


def test_bad_input_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nowhere-v0"):
        run_tradeoff(dataclasses.replace(CONFIG, env="Nowhere-v0"), tmp_path)
    with pytest.raises(SpaceError, match="expected a Box"):
        run_tradeoff(dataclasses.replace(CONFIG, env="CartPole-v1"), tmp_path)
    with pytest.raises(ConfigError, match="net_arch"):
        run_tradeoff(dataclasses.replace(CONFIG, small=(64,)), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value"), [("seeds", ()), ("seeds", (1, 1)), ("weights", (0.1, 0.1)), ("steps", 0), ("workers", 0)]
)
def test_bounds(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(CONFIG, **{key: value})


def test_files_of_points_are_plain_data(finished: Path) -> None:
    names = {path.name for path in (finished / "points").iterdir()}
    assert names == {job.file for job in CONFIG.jobs()}
    record = json.loads((finished / "points" / "asymmetric-50-seed0.json").read_text())
    assert record["job"]["settings"]["recipe"]["net_arch"] == [8, 8]
