"""Eval, play and profile take the policy of each point of a comparison, and train --resume each of its trainings."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents import SAC
from agents.cli import main
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import CONFIG
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

STEPS, EPISODES = 60, 2
FAST = "@steps=100@rounds=1@updates=20"
TRAINED = (
    *("sac:8,8", "bexa-sac:8,8, b = 0.2", "bexa-sac:8,8, b = 0.6", "asymmetric:8,8, λ = 50", "dense:4"),
    *("fit of bexa-sac:8,8, b = 0.2", "fit of bexa-sac:8,8, b = 0.6", "fit of asymmetric:8,8, λ = 50"),
)
TAKEN = ("was, as trained", "was, b = 0.2", "was, b = 0.6", "kept", "student:4 of was")
TAKEN += ("student of was, b = 0.2", "student of was, b = 0.6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("front")
    path = base / "policy.safetensors"
    SAC(gym.make("Pendulum-v1"), net_arch=(8, 8), buffer_size=100).save(path)
    config = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=(
            *("sac:8,8", "bexa-sac:8,8", "asymmetric:8,8@small_net_arch=4@hold=5", "dense:4", "fit"),
            *(f"was=retrofit:{path}{FAST}", f"kept={path}"),
        ),
        budgets=(0.2, 0.6),
        weights=(50.0,),
        seeds=(1,),  # not 0, the seed that an opened policy draws with unless its file holds another
        steps=STEPS,
        learning_starts=10,
        batch_size=8,
        episodes=EPISODES,
        eval_every=STEPS,
        eval_episodes=1,
        workers=1,
    )
    (written,) = run_tradeoff(config, base / "study")
    return written


def policies(folder: Path, labels: Sequence[str]) -> list[tuple[TradeoffPoint, list[str]]]:
    """Return the points under ``labels``, each with the words by which commands name its policy."""
    found = []
    for point in Comparison.read(folder).points:
        if point.label in labels:
            found.append((point, words_of(folder / point.extras["run"], point)))
    assert {point.label for point, _ in found} == set(labels)
    return found


def words_of(run: Path, point: TradeoffPoint) -> list[str]:
    if (run / CONFIG).is_file():
        return [str(run)]
    if "file" in point.extras:
        return [str(run / point.extras["file"]), "--env", "Pendulum-v1"]
    return [Comparison.read(run).settings["policy"], "--env", "Pendulum-v1"]


def test_every_point_is_of_a_policy_that_is_kept(folder: Path) -> None:
    assert {point.label for point in Comparison.read(folder).points} == {*TRAINED, *TAKEN}


def test_eval_measures_what_the_point_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for point, words in policies(folder, [*TRAINED, *TAKEN]):
        assert main(["eval", *words, "--episodes", str(EPISODES), "--json"]) == 0, point.label
        found = json.loads(capsys.readouterr().out)
        measured = (found["raw_return"], found["flops_per_step"])
        assert measured == (point.mean_return, point.flops_per_step), point.label


def test_profile_takes_every_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for point, words in policies(folder, [*TRAINED, *TAKEN]):
        assert main(["profile", *words, "--samples", "5"]) == 0, point.label
        assert "FLOPs per action" in capsys.readouterr().out


def test_play_films_every_policy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filmed: list[Any] = []
    monkeypatch.setattr("agents.cli.play.record_episode", lambda *words: filmed.append(words) or 1.0)
    for point, words in policies(folder, [*TRAINED, *TAKEN]):
        assert main(["play", *words, "--video", str(tmp_path)]) == 0, point.label
        (_, env, path, _) = filmed.pop()
        assert (env.render_mode, path) == ("rgb_array", tmp_path / "episode-0.gif")


def test_every_training_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (point, (run,)) in enumerate(policies(folder, TRAINED)):
        copy = shutil.copytree(run, tmp_path / str(number))
        assert main(["train", "--resume", str(copy), "--steps", str(STEPS + 20)]) == 0, point.label
        assert f"at step {STEPS}" in capsys.readouterr().out
        (resumed,) = Comparison.read(copy).points
        assert resumed.curve[-1][0] >= STEPS + 20
