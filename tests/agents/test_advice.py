"""What a stopped or refused command advises can be done: the command as it is printed, options that the verb has."""

import json
import shlex
import signal
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.cli import main
from agents.loop.callbacks import StopWhen
from agents.studies.sub_policies import any_zip

FOREIGN = f"{__name__}:tests/Foreign-v0"
TRAIN = ["train", "sac", "--steps", "30", "--max-episode-steps", "5", "--net-arch", "4", "--no-tensorboard"]
TRAIN += ["--eval-every", "0", "--eval-episodes", "1"]

gym.register("tests/Foreign-v0", entry_point="gymnasium.envs.classic_control.pendulum:PendulumEnv")


def asked(self: StopWhen, agent: Any) -> None:
    self.anywhere = False
    self.stop(signal.SIGINT)


def at_once(self: StopWhen, agent: Any) -> None:
    raise KeyboardInterrupt


def advised(said: str) -> list[str]:
    """Return the words of the command that ``said`` ends with."""
    return shlex.split(said.rstrip().rsplit("with: budget ", 1)[1])


@pytest.mark.parametrize("env_id", [FOREIGN, "Pendulum-v1"])
@pytest.mark.parametrize("name", ["run", "my run", "it's"])
def test_the_command_that_an_interrupted_training_prints_goes_on_with_it(
    env_id: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopWhen, "on_training_start", asked)
        assert main([*TRAIN, "--env", env_id, "--run", str(tmp_path / name)]) == 130
    words = advised(capsys.readouterr().out)
    assert ("--trust" in words) == (env_id == FOREIGN)
    assert main(words) == 0
    assert "at step 5 of 30" in capsys.readouterr().out


def test_a_training_that_stops_before_any_checkpoint_advises_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopWhen, "on_training_start", at_once)
        assert main([*TRAIN, "--env", "Pendulum-v1", "--run", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().out
    assert "last checkpoint" not in said
    assert "before the first checkpoint. Begin again with" in said
    assert main(advised(said)) == 0
    assert "at step 0 of 30" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "remedies"),
    [
        (["tradeoff"], ("--trust", "--env")),
        (["sweep", "bexa-sac"], ("--env",)),
        (["sizes"], ("--env",)),
        (["train", "sac"], ("--trust", "--env")),
        (["train", "--resume"], ("--trust",)),
        (["eval"], ("--trust", "--env")),
    ],
    ids=" ".join,
)
def test_a_foreign_environment_is_refused_with_the_remedies_that_the_verb_has(
    words: list[str], remedies: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[-1] in ("--resume", "eval"):
        record = {"agent": "SAC", "settings": {}, "run": {"env": FOREIGN}}
        (tmp_path / "config.json").write_text(json.dumps(record))
        words = [*words, str(tmp_path)]
    else:
        (tmp_path / "file.toml").write_text(f'env = "{FOREIGN}"\n')
        words = [*words, "--config", str(tmp_path / "file.toml")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "can run any code" in " ".join(said.split())
    assert tuple(option for option in ("--trust", "--env") if option in said) == remedies


def test_a_report_of_a_training_that_has_not_ended_says_how_to_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(StopWhen, "on_training_start", asked)
        assert main([*TRAIN, "--env", "Pendulum-v1", "--run", str(folder)]) == 130
    capsys.readouterr()
    assert main(["report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "has not ended" in said
    assert main(shlex.split(said.split("`budget ")[1].split("`")[0])) == 0
    assert main(["report", str(folder)]) == 0


def test_a_zip_among_the_sub_policies_is_known_as_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "policy.zip", "w") as file:
        file.writestr("data", "{}")
    assert any_zip(["nothing", str(tmp_path), str(tmp_path / "policy.zip")])
    assert not any_zip(["nothing", str(tmp_path)])
