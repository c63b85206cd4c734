"""Films of a comparison show the episodes that its points measured, are made once, and fail no study."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from PIL import Image

from agents import SAC
from agents.cli import main
from agents.report.films import with_films
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.report.video import record_episode
from agents.studies import films, tradeoff
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

STEPS, LIMIT = 40, 30
FAST = "@steps=60@rounds=1@updates=20"
READS = "reads=bexa-sac:8,8@budget_from_observation=true"
FILMED = {
    *("sac:8,8", "bexa-sac:8,8, b = 0.2", "reads, b = 0.2", "asymmetric:8,8, λ = 50", "dense:4"),
    *("fit of bexa-sac:8,8, b = 0.2", "fit of reads, b = 0.2", "fit of asymmetric:8,8, λ = 50"),
    *("was, as trained", "was, b = 0.2", "student of was, b = 0.2", "student:4 of was", "kept"),
}
Recorded = dict[str, float]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TradeoffConfig:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    SAC(gym.make("Pendulum-v1"), net_arch=(8, 8), buffer_size=100).save(path)
    return TradeoffConfig(
        env=("Pendulum-v1",),
        methods=(
            *("sac:8,8", "bexa-sac:8,8", READS, "asymmetric:8,8@small_net_arch=4@hold=5", "dense:4", "fit", "coin"),
            *(f"was=retrofit:{path}{FAST}", f"kept={path}"),
        ),
        budgets=(0.2,),
        weights=(50.0,),
        seeds=(1,),
        steps=STEPS,
        learning_starts=10,
        batch_size=8,
        episodes=1,
        eval_every=STEPS,
        eval_episodes=1,
        max_episode_steps=LIMIT,
        workers=1,
    )


@pytest.fixture(scope="module")
def finished(config: TradeoffConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_tradeoff(config, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished comparison."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that need no package to draw them."""
    monkeypatch.setattr(PendulumEnv, "render", lambda self: np.full((8, 8, 3), 100, np.uint8))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The return of each film by the name of its file."""
    found: Recorded = {}

    def record(policy: Any, env: gym.Env, path: Path, *words: Any, **named: Any) -> float:
        found[path.name] = record_episode(policy, env, path, *words, **named)
        return found[path.name]

    monkeypatch.setattr(films, "record_episode", record)
    return found


def by_label(folder: Path) -> dict[str, TradeoffPoint]:
    return {point.label: point for point in Comparison.read(folder).points}


def without_films(folder: Path) -> list[TradeoffPoint]:
    return [
        dataclasses.replace(point, extras={key: value for key, value in point.extras.items() if key != "film"})
        for point in Comparison.read(folder).points
    ]


def never(*words: Any, **named: Any) -> Any:
    raise AssertionError("this was done before")


def test_a_film_is_of_the_episode_that_the_timeline_shows(
    folder: Path, config: TradeoffConfig, recorded: Recorded
) -> None:
    run_tradeoff(config, folder, films=True)
    points = by_label(folder)
    assert {label for label, point in points.items() if "film" in point.extras} == FILMED
    for label in FILMED:
        point = points[label]
        path = folder / point.extras["run"] / point.extras["film"]
        with Image.open(path) as film:
            assert film.format == "GIF"
        assert recorded[path.name] == point.episodes[0]["return"], label
        if "timeline" in point.extras:
            assert recorded[path.name] == sum(point.extras["timeline"]["rewards"])
            assert len(point.extras["timeline"]["choices"]) == LIMIT


def test_asking_for_films_later_trains_and_measures_nothing_and_makes_each_once(
    folder: Path, config: TradeoffConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = without_films(folder)
    monkeypatch.setattr(tradeoff, "work", never)
    run_tradeoff(config, folder, films=True)
    assert without_films(folder) == before
    named = by_label(folder)
    monkeypatch.setattr(films, "record_episode", never)
    for again in (True, False):  # films that are there stay named
        run_tradeoff(config, folder, films=again)
        assert by_label(folder) == named


def test_a_film_that_was_deleted_is_made_again(folder: Path, config: TradeoffConfig, recorded: Recorded) -> None:
    plain = dataclasses.replace(config, methods=("sac:8,8", "dense:4"))
    run_tradeoff(plain, folder, films=True)
    point = by_label(folder)["dense:4"]
    (folder / point.extras["run"] / point.extras["film"]).unlink()
    recorded.clear()
    run_tradeoff(plain, folder, films=True)
    assert list(recorded) == ["dense-4.gif"]


def test_a_run_folder_s_own_report_has_the_film_too(folder: Path, config: TradeoffConfig) -> None:
    run_tradeoff(config, folder, films=True)
    run = folder / by_label(folder)["sac:8,8"].extras["run"]
    (point,) = with_films(Comparison.read(run), run).points
    assert point.extras["film"].kind == "image/gif"


def test_a_row_has_one_film_of_its_first_seed(tmp_path: Path, config: TradeoffConfig) -> None:
    plain = dataclasses.replace(config, methods=("sac:8,8",), budgets=(), seeds=(2, 0))
    run_tradeoff(plain, tmp_path, films=True)
    filmed = [point.seed for point in Comparison.read(tmp_path).points if "film" in point.extras]
    assert filmed == [2]
    run_tradeoff(dataclasses.replace(plain, seeds=(0, 2)), tmp_path, films=True)
    assert [point.seed for point in Comparison.read(tmp_path).points if "film" in point.extras] == filmed


def said_by(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "film" in line]


OWN = """
class Contender:
    def train(self, make_env, budget, steps, seed, meter):
        self.meter = meter
        return self
    def predict(self, observation, deterministic=True, **state):
        self.meter.add(1, "table")
        return [0.0], None
"""


def test_a_class_of_somebody_s_own_has_no_film(
    tmp_path: Path, config: TradeoffConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "filmed_contender.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    methods = ("sac:8,8", "own=filmed_contender:Contender")
    run_tradeoff(dataclasses.replace(config, methods=methods), tmp_path / "study", films=True)
    assert {label for label, point in by_label(tmp_path / "study").items() if "film" in point.extras} == {"sac:8,8"}
    (line,) = said_by(capsys)
    assert "own, b = 0.2" in line
    assert "filmed_contender:Contender" in line


def no_pygame(self: PendulumEnv) -> Any:
    raise gym.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame`")


def no_egl(self: PendulumEnv) -> Any:
    raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")


@pytest.mark.parametrize(("fault", "said"), [(no_pygame, "pip install pygame"), (no_egl, "eglQueryString")])
def test_an_environment_that_cannot_be_drawn_is_named_once_with_its_reason(
    folder: Path,
    config: TradeoffConfig,
    fault: Callable[[PendulumEnv], Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(PendulumEnv, "render", fault)
    run_tradeoff(config, folder, films=True)
    (line,) = said_by(capsys)
    assert "Pendulum-v1" in line
    assert said in line
    assert not any("film" in point.extras for point in Comparison.read(folder).points)


def test_an_environment_without_pictures_is_named_once(
    folder: Path, config: TradeoffConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PendulumEnv, "metadata", {"render_modes": ["ansi"], "render_fps": 30})
    run_tradeoff(config, folder, films=True)
    (line,) = said_by(capsys)
    assert "ansi" in line


def test_a_film_of_another_episode_is_not_named(
    folder: Path, config: TradeoffConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(films, "record_episode", lambda *words, **named: 1.0)
    run_tradeoff(dataclasses.replace(config, methods=("sac:8,8",)), folder, films=True)
    (line,) = said_by(capsys)
    assert "sac:8,8" in line
    assert "returned 1" in line
    assert "film" not in by_label(folder)["sac:8,8"].extras


def test_the_command_puts_films_on_the_page(tmp_path: Path) -> None:
    words = "--env Pendulum-v1 --methods sac:8,8 --steps 20 --batch-size 8 --seeds 0 --episodes 1 --workers 1 --films"
    assert main(["tradeoff", *words.split(), "--folder", str(tmp_path / "study")]) == 0
    assert "data:image/gif;base64," in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
