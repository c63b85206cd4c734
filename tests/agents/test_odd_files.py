"""Odd files and numbers in a run's folder: what is not ours is kept, what never ends or overflows is a named error."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from agents.cli import main
from agents.loop.checkpoint import load_agent, read_header
from agents.nets.moments import _alike
from agents.report.reading import checked_point, checked_record
from agents.report.tradeoff import FORMAT, Comparison, TradeoffPoint
from agents.runs.log import RunFolder
from agents.runs.records import numbers_in
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from budget_wrappers.deploy.exit_policy import is_exit_policy
from budget_wrappers.deploy.exit_policy import read_header as policy_header
from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError
from budget_wrappers.files import require_types

BEYOND = 10**400
"""A whole number that JSON holds and that no float does: the largest is 1.8e308."""
POINT = {"method": "m", "label": "m", "seed": 0, "mean_return": 1.0, "flops_per_step": 2.0}


@dataclass
class Weight:
    """Plain data with a number."""

    share: float


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail where a pipe is waited for."""

    def late(*_: object) -> None:
        pytest.fail("a pipe is waited for")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---- files that are being written -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["thesis.partial", "notes.1.partial", "plot.12.abc.partial", "weights.safetensors.partial", ".partial"]
)
def test_a_users_own_file_of_any_name_stays(name: str, tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}):
        (tmp_path / name).write_text("mine")
    with RunFolder(tmp_path):
        assert (tmp_path / name).read_text() == "mine"


def test_a_folder_named_like_a_partial_file_stays(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors.7.0123abcd.partial").mkdir()
    with RunFolder(tmp_path, {}):
        assert [path.name for path in tmp_path.glob("*.partial")] == ["best.safetensors.7.0123abcd.partial"]


@pytest.mark.parametrize(
    "name",
    ["best.safetensors.7.0123abcd.partial", "boundary.safetensors.partial", "checkpoint.safetensors.1.partial"],
)
def test_what_a_killed_process_was_writing_is_removed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("half")
    with RunFolder(tmp_path, {}):
        assert not list(tmp_path.glob("*.partial"))


# ---- pipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
@pytest.mark.parametrize(
    "reading", [read_header, policy_header, lambda path: load_agent(SAC, path, None)], ids=["agent", "exits", "load"]
)
@pytest.mark.usefixtures("in_time")
def test_a_pipe_in_place_of_a_checkpoint_is_refused(reading: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    os.mkfifo(path)
    with pytest.raises(CheckpointError):
        reading(path)
    assert not is_exit_policy(path)


@pytest.mark.usefixtures("in_time")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_a_link_to_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "checkpoint.safetensors").symlink_to("pipe")
    with pytest.raises(CheckpointError, match="a pipe"):
        read_header(tmp_path / "checkpoint.safetensors")


# ---- whole numbers above the range of floats ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [BEYOND, -BEYOND], ids=["above", "below"])
def test_whole_numbers_beyond_floats_are_named_errors(number: int) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        checked_point({**POINT, "mean_return": number})
    with pytest.raises(ValueError, match="expected a finite number"):
        checked_record({"env_id": "E", "points": [], "settings": {"random_return": number}})
    with pytest.raises(CheckpointError, match="expected finite numbers"):
        numbers_in(iter([{"step": 1, "raw_return": number}]), "step", "raw_return")
    with pytest.raises(ValueError, match="expected float"):
        require_types(Weight, {"share": number})
    assert not _alike(0.5, number)


def test_the_largest_float_is_a_number() -> None:
    assert numbers_in(iter([{"step": 1, "raw_return": 1.7e308}]), "step", "raw_return") == [(1, 1.7e308)]
    with pytest.raises(BudgetError):
        numbers_in(iter([{"step": 1, "raw_return": float("nan")}]), "step", "raw_return")


# ---- texts that UTF-8 cannot hold -----------------------------------------------------------------------------------

LONE = "\udcff"
"""What Python makes of the byte 0xff on a command line, and JSON of its escape."""


@pytest.mark.parametrize("key", ["env_id", "command", "label", "method", "version", "setting", "key"])
def test_a_comparison_with_a_text_that_no_page_can_hold_is_refused(key: str, tmp_path: Path) -> None:
    point = {**POINT, "episodes": [], "curve": [], "extras": {}} | ({key: LONE} if key in POINT else {})
    record = {"format": FORMAT, "env_id": "E", "points": [point], "command": "", "versions": {}, "settings": {}}
    record |= {"version": {"versions": {"a": LONE}}, "setting": {"settings": {"a": [LONE]}}}.get(key, {})
    record |= {"key": {"settings": {LONE: 1}}}.get(key, {})
    record |= {key: LONE} if key in record else {}
    (tmp_path / "tradeoff.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="UTF-8 can hold"):
        Comparison.read(tmp_path)


def test_labels_in_python_are_texts_that_a_page_can_hold() -> None:
    comparison = Comparison("E", [TradeoffPoint("m", "m", 0, 1.0, 2.0)])
    with pytest.raises(ConfigError, match=r"label='\\udcff': expected a text that UTF-8 can hold"):
        Comparison.merged([comparison], [LONE])
    with pytest.raises(ConfigError, match="env_id"):
        Comparison(LONE, comparison.points)


@pytest.mark.parametrize(
    "words",
    [
        ["report", "{}", "--label", LONE],
        ["report", "{}", "--out", "{}/" + LONE],
        ["train", "sac", "--env", "Pendulum-v1", "--steps", "10", "--run", "{}/" + LONE],
        ["eval", "{}", "--env", LONE],
        [LONE],
    ],
    ids=ascii,
)
def test_words_of_a_command_line_are_texts_of_utf_8(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Comparison("E", [TradeoffPoint("m", "m", 0, 1.0, 2.0)]).write(tmp_path)
    assert main([word.format(tmp_path) for word in words]) == 2
    assert "is no text of UTF-8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tradeoff.json"]


def test_a_run_folder_has_a_name_of_utf_8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="UTF-8 can hold"):
        RunFolder(tmp_path / LONE, {})
    assert not list(tmp_path.iterdir())


# ---- settings that this machine has no room or device for -----------------------------------------------------------

SMALL = RunConfig("Pendulum-v1", steps=10, max_episode_steps=5, eval_every=0, checkpoint_every=5, tensorboard=False)
HUGE = (2**20, 2**24)
"""Two layers with 2**44 weights between them, 64 TiB."""


@pytest.mark.parametrize(
    ("trained", "error", "message"), [(True, CheckpointError, "net_arch"), (False, ConfigError, "memory")]
)
def test_a_foreign_configuration_of_huge_networks_is_a_named_error(
    trained: bool, error: Any, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with Run.start(SAC, {"net_arch": (4,)}, SMALL, folder) as run:
        if trained:
            run.train()
    record = json.loads((folder / "config.json").read_text())
    record["settings"]["net_arch"] = HUGE
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(error, match=message):
        Run.resume(SAC, folder)


def test_a_device_that_is_not_there_is_a_named_error_at_construction() -> None:
    name = "cuda" if not torch.cuda.is_available() else f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"device='{name}' cannot be used here"):
        SAC(gym.make("Pendulum-v1"), net_arch=(4,), device=name)
