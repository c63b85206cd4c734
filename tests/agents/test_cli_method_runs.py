"""Runs of agents with budget methods on the command line: trained, interrupted, resumed, evaluated and drawn."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.loop.callbacks import StopWhen
from benchmarks.resume import differences

TINY = """
env = "Pendulum-v1"
steps = 200
max_episode_steps = 25
net_arch = [16, 16]
batch_size = 16
learning_starts = 20
eval_every = 100
eval_episodes = 1
log_every = 50
checkpoint_every = 50
tensorboard = false
"""
BOTH = ["--with", "exits", "polyprune", "--budget", "0.3", "--final", "0.8", "--every", "10"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: str) -> Path:
    """Return the folder of a finished run with two methods."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "sac", "--config", config, *BOTH, "--run", str(folder)]) == 0
    return folder


def test_the_run_folder_says_what_the_agent_was_given(whole: Path) -> None:
    given = json.loads((whole / "config.json").read_text())["methods"]
    exits, polyprune = given["methods"]
    assert (exits["name"], exits["settings"]["budget"]) == ("exits", 0.3)
    assert (polyprune["name"], polyprune["settings"]["final"]) == ("polyprune", 0.8)


def interrupted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``words`` up to the end of the third episode."""
    ends = StopWhen.on_episode_end

    def stop(self: StopWhen, agent: Any, episode: Any) -> None:
        if agent.num_timesteps >= 75:
            self.stop(signal.SIGINT)
        ends(self, agent, episode)

    with monkeypatch.context() as patched:
        patched.setattr(StopWhen, "on_episode_end", stop)
        assert main(words) == 128 + signal.SIGINT


def test_an_interrupted_run_with_two_methods_ends_with_the_same_numbers(
    whole: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    interrupted(["train", "sac", "--config", config, *BOTH, "--run", str(folder)], monkeypatch)
    capsys.readouterr()
    assert main(["train", "--resume", str(folder)]) == 0
    assert f"Resuming {folder} at step 75 of 200" in capsys.readouterr().out
    assert differences(whole, folder) == []


def test_sub_policies_with_methods_are_trained_interrupted_and_evaluated(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["--large.with", "exits", "polyprune", "--large.budget", "0.3", "--large.every", "10"]
    sparse = ["--large.final", "0.5", "--small.final", "0.5"]
    words = ["train", "asymmetric", "--config", config, *large, "--small.with", "polyprune", *sparse, "--run"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    interrupted([*words, str(tmp_path / "killed")], monkeypatch)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert differences(tmp_path / "whole", tmp_path / "killed") == []
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["methods"].keys() == {
        "small_methods",
        "large_methods",
    }
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "killed"), "--episodes", "1"]) == 0
    assert "Asymmetric with small polyprune, large exits, large polyprune in Pen" in capsys.readouterr().out


@pytest.mark.parametrize("which", ["last", "best"])
def test_eval_prints_cost_and_budget(which: str, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(whole), "--episodes", "1", "--which", which]) == 0
    text = capsys.readouterr().out
    assert "SAC with exits, polyprune in Pendulum-v1: 1 episodes of 25.0 steps" in text
    assert "acted by        exit 1 " in text
    (line,) = [line for line in text.splitlines() if "executed cost" in line]
    assert line.endswith("(budget 0.3)")


def test_profile_play_and_report_take_such_a_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filmed: list[Any] = []
    monkeypatch.setattr("agents.cli.play.record_episode", lambda *words: filmed.append(words) or 1.0)
    assert main(["profile", str(whole), "--samples", "20"]) == 0
    assert main(["play", str(whole), "--video", str(tmp_path / "films")]) == 0
    assert [method.name for method in filmed[0][0].methods] == ["exits", "polyprune"]
    assert main(["report", str(whole), "--out", str(tmp_path)]) == 0
    assert "SAC with exits, polyprune" in capsys.readouterr().out
