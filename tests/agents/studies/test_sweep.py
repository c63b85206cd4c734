"""Random search: draws follow the published ranges and the seed, trainings are done once, the best get more seeds."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.cli import main
from agents.cli.sweep import SPACES, published
from agents.report.tradeoff import TradeoffPoint
from agents.runs.workers import Lost
from agents.studies import sweep
from agents.studies.names import agent_named
from agents.studies.space import draw, read_space, space_of
from agents.studies.sweep import SweepConfig, over_training, run_sweep
from agents.studies.sweep_table import SweepStudy
from budget_wrappers.errors import ConfigError, NonFiniteError

SPACE = """
learning_rate = { q_log_uniform = [1e-3, 4e-3, 1e-3] }
net_arch = { value = [4] }
batch_size = { value = 8 }
learning_starts = { value = 20 }
budget = { choice = [0.0, 1.0] }
"""


def test_draws_are_log_uniform_multiples_within_the_ends() -> None:
    one = space_of({"x": {"q_log_uniform": [1e-4, 7e-4, 1e-4]}})
    drawn = [draw(one, 0, number)["x"] for number in range(4_000)]
    assert set(drawn) == {0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0007}
    # Rounded to 1e-4: everything up to 1.5e-4, log(1.5)/log(7) = .208 of a draw; 4 standard errors: .026
    assert drawn.count(0.0001) / 4_000 == pytest.approx(math.log(1.5) / math.log(7), abs=0.026)


def test_a_configuration_depends_on_the_seed_and_its_number_alone() -> None:
    space = space_of({"a": {"choice": list(range(100))}, "b": {"q_log_uniform": [1, 100, 1]}})
    assert draw(space, 3, 7) == draw(space, 3, 7)
    assert len({str(draw(space, 3, number)) for number in range(20)}) > 15
    assert draw(space, 4, 7) != draw(space, 3, 7)


@pytest.mark.parametrize("name", published())
def test_published_spaces_are_configurations_of_their_agents(name: str) -> None:
    space = read_space(SPACES / f"{name}.toml")
    for number in range(50):
        agent_named(name).config_class.of(draw(space, 0, number))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "an empty search space"),
        ({"x": 3}, r"x = 3 in a search space: expected"),
        ({"x": {"uniform": [0, 1]}}, "expected .* q_log_uniform"),
        ({"x": {"choice": []}}, "choice = .*; expected a list of one value at least"),
        ({"x": {"q_log_uniform": [0, 1, 0.1]}}, "expected .*low, high, q"),
        ({"x": {"q_log_uniform": [1, 2]}}, "expected .*low, high, q"),
        ({"x": {"q_log_uniform": [1e-4, math.inf, 1e-4]}}, "all finite"),
        ({"x": {"q_log_uniform": [1.6, 1.7, 1]}}, "a multiple of q from low to high"),
    ],
)
def test_what_is_no_space_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(table)


def config(**changes: Any) -> SweepConfig:
    return SweepConfig(
        **{
            "env": "Pendulum-v1",
            "steps": 200,
            "configurations": 3,
            "finalists": 1,
            "seeds": (0, 1),
            "eval_every": 100,
            "eval_episodes": 1,
            "episodes": 1,
            "workers": 1,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "space.toml").write_text(SPACE)
    words = ["sweep", "bexa-sac", "--env", "Pendulum-v1", "--space", str(folder / "space.toml")]
    words += ["--steps", "200", "--configurations", "3", "--finalists", "1", "--seeds", "0", "1", "--eval-every", "100"]
    words += ["--eval-episodes", "1", "--episodes", "1", "--workers", "1", "--folder", str(folder)]
    assert main(words) == 0
    return folder


def test_the_best_configuration_gets_the_other_seeds(finished: Path) -> None:
    record = json.loads((finished / "sweep.json").read_text())
    first = {row["configuration"]: row["scores"]["0"] for row in record["rows"]}
    best = max(first, key=first.__getitem__)
    assert record["winner"] == best
    assert [len(row["scores"]) for row in record["rows"]] == [2, 1, 1]
    assert record["rows"][0]["configuration"] == best
    top = record["rows"][0]
    assert top["mean"] == pytest.approx(np.mean(list(top["scores"].values())))
    low, high = top["interval"]
    assert low <= top["interquartile_mean"] <= high
    assert f"| **{best}** |" in (finished / "sweep.md").read_text()


def test_a_second_call_trains_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((finished / "sweep.json").read_text())
    monkeypatch.setattr(sweep, "try_training", None)
    study = run_sweep("BexaSAC", config(), read_space(finished / "space.toml"), finished, progress=False)
    assert [row["scores"] for row in study.rows()] == [row["scores"] for row in before["rows"]]


def test_a_folder_of_another_space_is_refused(finished: Path) -> None:
    other = space_of({"net_arch": {"value": [5]}, "learning_starts": {"value": 20}})
    with pytest.raises(ConfigError, match="was made with"):
        run_sweep("BexaSAC", config(), other, finished, progress=False)


def test_a_configuration_that_cannot_be_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget=-1: expected 0"):
        run_sweep("BexaSAC", config(), space_of({"budget": {"choice": [-1]}}), tmp_path, progress=False)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="finalists=4: expected at most the 3"):
        config(finalists=4)
    with pytest.raises(ConfigError, match="eval_every=300: expected at most the 200"):
        config(eval_every=300)
    with pytest.raises(ConfigError, match=r"seeds=\(-1,\): expected whole numbers of 0 or more"):
        config(seeds=(-1,))


def test_a_configuration_that_diverges_is_out_of_the_ranking_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"net_arch": {"value": [4]}, "batch_size": {"value": 8}, "learning_starts": {"value": 20}}
    space = space_of({"learning_rate": {"choice": [1e-3, 1e30]}, **small})
    rates = [draw(space, 0, number)["learning_rate"] for number in range(5)]
    assert rates == [1e30, 1e30, 1e30, 1e30, 1e-3]
    several = config(configurations=5, finalists=2)
    run_sweep("BexaSAC", several, space, tmp_path, progress=False)
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record["winner"] == 4
    assert [row["configuration"] for row in record["rows"]] == [4]
    assert list(record["diverged"]) == ["0", "1", "2", "3"]
    assert "expected finite numbers" in record["diverged"]["0"]
    assert "4 diverged: 0, 1, 2, 3" in (tmp_path / "sweep.md").read_text()
    monkeypatch.setattr(sweep, "try_training", None)  # neither those that ended nor those that diverged
    assert run_sweep("BexaSAC", several, space, tmp_path, progress=False).winner == 4


def test_a_search_that_lost_a_training_names_it_ranks_the_others_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = iter([True])

    def on(do: Any, jobs: Any, advance: Any, workers: int) -> Any:
        for job in jobs:
            if job.name == "config-000-seed0" and next(lost, False):
                yield job, Lost("killed by SIGKILL", 3)
            else:
                yield job, do(job, lambda steps: True)

    monkeypatch.setattr("agents.runs.workers.run_jobs", on)
    (tmp_path / "space.toml").write_text(SPACE)
    words = ["sweep", "bexa-sac", "--env", "Pendulum-v1", "--space", str(tmp_path / "space.toml"), "--steps", "60"]
    words += ["--configurations", "2", "--finalists", "1", "--seeds", "0", "--eval-every", "60", "--eval-episodes", "1"]
    words += ["--episodes", "1", "--folder", str(tmp_path / "search")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "no result of config-000-seed0 (its process was killed by SIGKILL, 3 times)" in said
    assert f"Go on with the same options and --folder {tmp_path / 'search'}" in said
    record = json.loads((tmp_path / "search" / "sweep.json").read_text())
    assert [row["configuration"] for row in record["rows"]] == [1]
    assert record["diverged"] == {
        "0": "seed 0: its process was killed by SIGKILL, 3 times; the same command tries again"
    }
    assert main(words) == 0
    record = json.loads((tmp_path / "search" / "sweep.json").read_text())
    assert sorted(row["configuration"] for row in record["rows"]) == [0, 1]
    assert record["diverged"] == {}


def test_a_finalist_that_diverges_on_another_seed_does_not_win() -> None:
    study = SweepStudy(
        "SAC", "Pendulum-v1", {0: {}, 1: {}}, {0: {0: 9.0}, 1: {0: 1.0, 1: 2.0}}, {0: 1.0, 1: 1.0}, (0, 1), {}
    )
    assert study.winner == 0
    gone = replace(study, diverged={0: "seed 1: the reward is nan"})
    assert gone.winner == 1
    assert [row["configuration"] for row in gone.rows()] == [1, 0]
    assert replace(study, diverged={0: "", 1: ""}).winner is None


def test_a_search_whose_configurations_all_diverge_says_so(tmp_path: Path) -> None:
    small = {"net_arch": {"value": [4]}, "batch_size": {"value": 8}, "learning_starts": {"value": 20}}
    space = space_of({"learning_rate": {"value": 1e30}, **small})
    with pytest.raises(NonFiniteError, match=r"all 1 configurations diverged, configuration 0 with seed 0: .*lower"):
        run_sweep("BexaSAC", config(configurations=1), space, tmp_path, progress=False)


def test_an_agent_without_a_published_space_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "dqn", "--env", "CartPole-v1"]) == 2
    assert "dqn has no published search space; pass --space" in capsys.readouterr().err


def test_help_says_what_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    assert "Published search spaces: bexa-sac, bexa-td3" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sweep", "bexa-sac", "--help"])
    assert "--configurations" in capsys.readouterr().out


def test_a_score_is_the_mean_over_the_whole_training() -> None:
    episodes = [{"return": 9.0, "flops": 10, "length": 1}]
    point = TradeoffPoint.from_episodes("m", "m", 0, episodes, [(1, 2.0), (2, 4.0)])
    assert over_training(point) == 3.0
    with pytest.raises(ConfigError, match="never evaluated"):
        over_training(TradeoffPoint.from_episodes("m", "m", 0, episodes))
