"""Paths, files and environments that a command cannot use: one clean line and exit code 2, before any work."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents.cli import main

TRAININGS = [["train", "sac"], ["tradeoff"], ["sizes"], ["sweep", "sac"]]
OPENING = [["eval"], ["profile"], ["play"], ["retrofit"], ["train", "--resume"]]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which ``words`` are refused."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"budget {words[0]}: error: ")
    return line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("no folder")
    return path


# A policy that is not there shows that the path to write to is looked at first.
@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize(
    "words",
    [
        *[[*verb, "--env", "Pendulum-v1", "--folder"] for verb in TRAININGS],
        ["retrofit", "nothing", "--folder"],
        ["report", "nothing", "--out"],
        ["play", "nothing", "--video"],
    ],
    ids=" ".join,
)
def test_a_file_where_a_folder_is_expected(
    words: list[str], below: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([*words, str(file / below)], capsys)
    assert f"{file} is a file; expected a folder" in line
    assert file.read_text() == "no folder"


@pytest.mark.parametrize("given", [".", "", "/"])
@pytest.mark.parametrize("words", [["profile", "nothing", "--out"], ["play", "nothing", "--timeline"]], ids=" ".join)
def test_a_folder_where_a_file_is_expected(words: list[str], given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder; expected a file's path" in refused([*words, given], capsys)


def test_a_file_below_a_file_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{file} is a file" in refused(["profile", "nothing", "--out", str(file / "card.json")], capsys)


@pytest.mark.parametrize("verb", OPENING, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "a list where an object belongs"),
        ("{", "cannot read"),
        ("{}", "has agent=None"),
        ('{"agent": "SAC", "settings": {}, "run": 3}', "has run=3"),
    ],
)
def test_a_configuration_of_something_else(
    verb: list[str], text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text)
    line = refused([*verb, str(tmp_path)], capsys)
    assert message in line
    assert "`budget train`" in line


@pytest.mark.parametrize("error", [ImportError("moved elsewhere"), FileNotFoundError("no such model")], ids=repr)
@pytest.mark.parametrize("words", [["profile", "--agent", "sac"], ["check", "RecordComputeStatistics"]], ids=" ".join)
def test_an_environment_that_cannot_be_made(
    words: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: Any) -> gym.Env:
        raise error

    spec = gym.envs.registration.EnvSpec("tests/Fails-v0", entry_point=fails)
    monkeypatch.setitem(gym.registry, spec.id, spec)
    assert f"env='{spec.id}' cannot be made ({error})" in refused([*words, "--env", spec.id], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "RecordComputeStatistics", "--seed", "-1"], "seed=-1: expected 0 or more"),
        (["check", "RecordComputeStatistics", "--steps", "0"], "steps=0: expected at least 1"),
        (["play", "nothing", "--episodes", "0"], "episodes=0: expected at least 1"),
    ],
    ids=str,
)
def test_numbers_out_of_bounds(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(words, capsys)


def test_what_the_disk_refuses_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: str) -> Any:
        raise OSError(28, "No space left on device", "runs/demo/metrics.jsonl")

    monkeypatch.setattr("importlib.import_module", full)
    line = refused(["train"], capsys)
    assert "No space left on device: 'runs/demo/metrics.jsonl'; expected to be able to read and write there" in line
