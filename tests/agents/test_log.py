"""Run folders: what made a run stands beside what it made, and nothing of it is lost or written twice."""

import json
import sys
from pathlib import Path

import pytest

from agents.runs import log
from agents.runs.log import RunFolder, read_rows
from budget_wrappers.errors import CheckpointError, ConfigError, MissingExtraError


def test_folder_says_what_made_it(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"steps": 3}, command="budget train sac"):
        pass
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"steps": 3}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"] == "budget train sac"
    assert {"python", "torch", "mujoco"} <= record["versions"].keys()
    assert record.keys() == {"command", "versions", "commit", "crc32"}


def test_commit_is_a_hash_or_nothing() -> None:
    found = log.commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40


def test_clock_fields_stand_apart(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.write({"step": 1, "return": 2.0}, seconds=0.5)
    assert list(read_rows(tmp_path)) == [{"step": 1, "return": 2.0, "clock": {"seconds": 0.5}}]


def test_rows_of_one_kind(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.write({"kind": "training", "step": 1})
        folder.write({"kind": "evaluation", "step": 2})
        assert [row["step"] for row in folder.rows("evaluation")] == [2]


def test_row_that_a_killed_process_left_half_written_is_no_row(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.write({"step": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ret')
    assert [row["step"] for row in read_rows(tmp_path)] == [1]


def test_cut_forgets_what_followed_the_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.write({"step": 1})
        size = folder.flush()
        folder.write({"step": 2})
    with RunFolder(tmp_path) as folder:
        folder.cut(size, step=1)
        folder.write({"step": 3})
        assert folder.flush() == 2 * size
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 3]


def test_metrics_that_are_shorter_than_the_checkpoint_remembers_are_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, {}) as folder,
        pytest.raises(CheckpointError, match=r"has 0 bytes: expected at least 10.*put the whole file back"),
    ):
        folder.cut(10, step=1)


def test_folder_of_a_run_is_not_taken_for_another(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}):
        pass
    with pytest.raises(ConfigError, match=r"holds a run already: expected a new folder; resume it with --resume"):
        RunFolder(tmp_path, {})


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json.*expected a run folder"):
        RunFolder(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_run_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}), pytest.raises(ConfigError, match="is being written by another process"):
        RunFolder(tmp_path)


def test_files_that_a_killed_process_was_writing_are_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}):
        (tmp_path / "checkpoint.safetensors.1.partial").write_bytes(b"half")
    with RunFolder(tmp_path):
        assert not list(tmp_path.glob("*.partial"))


def test_tensorboard_has_the_numbers_of_the_rows(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunFolder(tmp_path, {}, tensorboard=True) as folder:
        folder.write({"kind": "training", "step": 5, "return": 2.0}, seconds=1.0)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("training/return")] == [(5, 2.0)]
    assert set(events.Tags()["scalars"]) == {"training/return", "training/clock/seconds"}


def test_missing_tensorboard_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        RunFolder(tmp_path, {}, tensorboard=True) as folder,
        pytest.raises(MissingExtraError, match=r"pip install tensorboard, or pass --no-tensorboard"),
    ):
        folder.write({"step": 1})
