"""Links and other odd files in a stranger's run folder, and two processes that start one run."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents import SAC
from agents.cli import main
from agents.loop.checkpoint import read_header, save_agent
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import RunFolder, read_rows
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from agents.studies.training import Training, outcome
from budget_wrappers.errors import CheckpointError, ConfigError
from tests.agents.small import make_agent

PRECIOUS = b"precious words that nobody may overwrite"
POINT = TradeoffPoint("m", "m", 0, 1.0, 2.0)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="links there need rights that tests do not have")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder as a stranger would make it by hand."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    agent = make_agent("sac")
    run = {"env": "Pendulum-v1", "steps": 30, "eval_every": 0, "tensorboard": True, "max_episode_steps": 25}
    for name in ("checkpoint", "best"):
        save_agent(agent, folder / f"{name}.safetensors", extra={"callbacks": {}, "metrics_bytes": 0})
    record = {"agent": "SAC", "settings": agent.config.to_dict(), "run": run}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "run.json").write_text(json.dumps({"command": "budget train", "versions": {}, "commit": None}))
    (folder / "metrics.jsonl").touch()
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "foreign")
    return tmp_path / "foreign"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious.txt"
    path.write_bytes(PRECIOUS)
    return path


def attempt(*words: str) -> Any:
    """Return the exit code of a command line, or what it raised."""
    try:
        return main(list(words))
    except (SystemExit, Exception) as error:  # noqa: BLE001  whatever it is, the assertions follow
        return error


def moved_away(path: Path) -> Path:
    """Put a symbolic link in the place of a file or folder, and return where it is now."""
    there = path.parent.parent / f"outside-{path.name}"
    path.rename(there)
    path.symlink_to(there)
    return there


# ---- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("checkpoint", [True, False], ids=["checkpoint", "none"])
def test_resuming_writes_through_no_link_of_the_metrics(
    link: Any, checkpoint: bool, folder: Path, precious: Path
) -> None:
    (folder / "metrics.jsonl").unlink()
    link(precious, folder / "metrics.jsonl")
    if not checkpoint:
        (folder / "checkpoint.safetensors").unlink()
    code = attempt("train", "--resume", str(folder))
    assert precious.read_bytes() == PRECIOUS
    assert code == 2


@pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", "best.safetensors", "run.json"])
def test_no_file_of_a_run_is_read_through_a_link(name: str, folder: Path) -> None:
    moved_away(folder / name)
    verb = ["train", "--resume", str(folder)]
    if name == "best.safetensors":
        verb = ["eval", str(folder), "--episodes", "1", "--which", "best"]
    assert attempt(*verb) == 2


def test_rows_are_not_read_through_a_link(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as run:
        run.write({"step": 1})
    moved_away(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(CheckpointError, match="is a link"):
        list(read_rows(tmp_path / "run"))


@pytest.mark.parametrize("name", ["tensorboard", "videos"])
def test_no_folder_of_a_run_is_written_through_a_link(name: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / name).symlink_to(outside)
    config = json.loads((folder / "config.json").read_text())
    config["run"] |= {"log_every": 5, "video_every": 0 if name == "tensorboard" else 5}
    (folder / "config.json").write_text(json.dumps(config))
    attempt("train", "--resume", str(folder))
    assert list(outside.iterdir()) == []


def test_a_studys_runs_are_neither_written_nor_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "runs").symlink_to(tmp_path / "outside")
    config = TradeoffConfig(("Pendulum-v1",), ("sac:2",), seeds=(0,), steps=10, episodes=1, workers=1)
    with pytest.raises(CheckpointError, match="is a link"):
        run_tradeoff(config, tmp_path / "study")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_searchs_trainings_are_not_looked_for_behind_a_link(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "elsewhere" / "one")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "runs").symlink_to(tmp_path / "elsewhere")
    training = Training("SAC", "one", str(tmp_path / "search"), {"env": "Pendulum-v1"}, {}, 1)
    with pytest.raises(CheckpointError, match="is a link"):
        outcome(training)


def test_a_comparison_is_not_read_through_a_link(tmp_path: Path) -> None:
    moved_away(Comparison("A", [POINT]).write(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="is a link"):
        Comparison.read(tmp_path / "run")


def test_the_folder_itself_may_be_a_link_as_the_user_names_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "latest").symlink_to(folder)
    assert attempt("eval", str(folder.parent / "latest"), "--episodes", "1") == 0
    capsys.readouterr()


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")
    # Held open, so that the opening of a pipe ends, and there is something to be seen.
    holder = os.open(folder / "metrics.jsonl", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(CheckpointError, match="expected a regular file"):
            RunFolder(folder)
    finally:
        os.close(holder)


# ---- two starters ---------------------------------------------------------------------------------------------------


def test_a_starter_that_gets_no_lock_has_written_nothing(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "metrics.jsonl").open("ab") as winner:
        fcntl.flock(winner, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="being written by another process"):
            RunFolder(tmp_path, {"steps": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_starter_that_gets_no_lock_sweeps_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {"steps": 3}) as winner:
        (tmp_path / "config.json").unlink()
        half = tmp_path / "checkpoint.safetensors.1.partial"
        half.write_bytes(b"half")
        with pytest.raises(ConfigError):
            RunFolder(tmp_path, {"steps": 4})
        assert sorted(path.name for path in tmp_path.iterdir()) == [half.name, "metrics.jsonl", "run.json"]
        winner.write({"step": 1})
    assert [row["step"] for row in read_rows(tmp_path)] == [1]


def test_a_new_run_is_not_mixed_with_the_metrics_of_another(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {"steps": 3}) as first:
        first.write({"step": 1})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="holds a run already"):
        RunFolder(tmp_path, {"steps": 4})


def test_a_failed_start_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {"steps": 3}):
        pass
    for _ in range(2):
        with pytest.raises(ConfigError, match="holds a run already"):
            RunFolder(tmp_path, {"steps": 4})
    with RunFolder(tmp_path) as again:
        assert again.config == {"steps": 3}


# ---- what a checkpoint remembers of its run -------------------------------------------------------------------------

CONFIG = RunConfig("Pendulum-v1", steps=60, max_episode_steps=25, eval_every=0, tensorboard=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    settings = {"net_arch": (4, 4), "learning_starts": 1_000, "buffer_size": 100}
    with Run.start(SAC, settings, CONFIG, folder) as run:
        assert run.train()
    return folder


@pytest.mark.parametrize("change", [{"penalty": 0.5}, {"max_episode_steps": 24}, {"n_envs": 2}, {"steps": 50}])
def test_a_run_is_not_resumed_under_another_configuration(
    change: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["run"] |= change
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with (
        pytest.raises(CheckpointError, match=r"was made by a run with .* put .* back"),
        Run.resume(SAC, tmp_path / "run", steps=80),
    ):
        pass
    assert attempt("eval", str(tmp_path / "run"), "--episodes", "1") == 2


def test_more_steps_are_asked_for_again_and_again(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for steps in (80, 100):
        with Run.resume(SAC, tmp_path / "run", steps=steps) as run:
            assert run.train()
    assert read_header(tmp_path / "run" / "checkpoint.safetensors")["counters"]["num_timesteps"] == 100
