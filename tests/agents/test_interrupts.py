"""Signals stop every command where nothing is lost, with their exit status, and processes are not left behind."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.loop.callbacks import StopWhen
from agents.runs.interrupt import interruptible
from agents.runs.workers import run_jobs
from benchmarks.kills import session_of
from tests.agents import jobs

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Let signals that nothing handles do nothing, instead of ending the test session."""
    before = {number: signal.signal(number, lambda number, frame: None) for number in NUMBERS[1:]}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# ---- in this process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_the_second_raises_and_handlers_come_back(number: signal.Signals) -> None:
    stop, before = StopWhen(), {one: signal.getsignal(one) for one in NUMBERS}
    with interruptible(stop):
        signal.raise_signal(number)
        assert stop.reason == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert {one: signal.getsignal(one) for one in NUMBERS} == before


def test_a_signal_of_one_kind_counts_as_the_second_of_another() -> None:
    stop = StopWhen()
    with interruptible(stop), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert stop.reason == signal.SIGTERM


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopWhen()
    with interruptible(stop):
        signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
    assert stop.reason == signal.SIGTERM
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", NUMBERS)
def test_a_study_in_this_process_lets_its_job_save_and_begins_no_other(number: signal.Signals, tmp_path: Path) -> None:
    study = run_jobs(
        jobs.signalled, [tmp_path / f"{number.name}-1", tmp_path / f"{number.name}-2"], lambda steps: None, 1
    )
    try:
        list(study)
        ended = "to its end"
    except KeyboardInterrupt as interrupt:
        ended = str(interrupt)
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert (saved, ended) == ([f"{number.name}-1.begun", f"{number.name}-1.saved"], f"interrupted by {number.name}")


VERBS = {
    "train": "agents.runs.run.Run.start",
    "tradeoff": "agents.studies.tradeoff.run_tradeoff",
    "sweep": "agents.studies.sweep.run_sweep",
    "sizes": "agents.studies.sizes.run_sizes",
    "retrofit": "agents.cli.retrofit.open_policy",
    "eval": "agents.cli.evaluation.open_policy",
}
WORDS = {
    "train": ["sac", "--env", "Pendulum-v1"],
    "tradeoff": ["--env", "Pendulum-v1"],
    "sweep": ["bexa-sac", "--env", "Pendulum-v1"],
}
WORDS |= {"sizes": ["--env", "Pendulum-v1"], "retrofit": ["run"], "eval": ["run"]}


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        *((verb, signal.SIGTERM) for verb in VERBS),
        ("train", signal.SIGHUP),
        ("sizes", signal.SIGHUP),
        ("eval", signal.SIGHUP),
        ("tradeoff", signal.SIGINT),
    ],
)
def test_every_verb_has_the_exit_status_of_the_signal(
    verb: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        signal.raise_signal(number)
        raise ValueError("the signal did nothing")

    monkeypatch.setattr(VERBS[verb], interrupted)
    monkeypatch.chdir(tmp_path)
    try:
        code = main([verb, *WORDS.get(verb, [])])
    except ValueError as error:
        code = str(error)
    assert code == 128 + number


def test_a_run_that_reached_its_end_when_it_was_asked_to_stop_is_not_evaluated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(self: StopWhen, agent: Any) -> None:
        self.anywhere, self.latest = False, None
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(StopWhen, "on_training_start", asked)
    words = ["train", "sac", "--env", "Pendulum-v1", "--steps", "30", "--net-arch", "4", "--no-tensorboard"]
    assert main([*words, "--run", str(tmp_path / "run")]) == 129
    assert "saved, not evaluated at step 30" in capsys.readouterr().out
    assert not (tmp_path / "run" / "tradeoff.json").exists()


# ---- worker processes -----------------------------------------------------------------------------------------------


def results_of(names: list[str], folder: Path, workers: int = 2) -> tuple[dict[str, str], int]:
    """Return what became of each job, or of all of them, and the steps that were told."""
    told: list[int] = []
    try:
        found = {
            job.name: str(result) for job, result in run_jobs(jobs.count, paths(names, folder), told.append, workers)
        }
    except Exception as error:  # noqa: BLE001 - what the loop raised is the finding
        found = {"the loop": type(error).__name__}
    return found, sum(told)


def paths(names: list[str], folder: Path) -> list[Path]:
    return [folder / name for name in names]


@pytest.mark.parametrize("how", ["SIGKILL", "exit"])
def test_a_job_whose_worker_is_killed_is_tried_again_and_its_steps_count_once(how: str, tmp_path: Path) -> None:
    names = [f"die-{how}", "sound"]
    assert results_of(names, tmp_path) == ({name: name for name in names}, 20)


def test_a_job_that_is_killed_each_time_is_lost_and_the_others_go_on(tmp_path: Path) -> None:
    found, _ = results_of(["lost-SIGKILL", "one", "two", "three"], tmp_path)
    assert found.pop("lost-SIGKILL", None) == "its process was killed by SIGKILL, 3 times"
    assert found == {name: name for name in ("one", "two", "three")}
    assert (tmp_path / "lost-SIGKILL.begun").read_text() == "xxx"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [("x", ValueError, "^x is refused$"), ("unsendable", RuntimeError, "UnsendableError: one and two")],
)
def test_an_error_in_a_worker_is_raised_with_its_traceback(name: str, kind: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=text) as raised:
        list(run_jobs(jobs.fail, paths([name, "y"], tmp_path)[:1], lambda steps: None, 2))
    assert "in fail" in str(raised.value.__cause__)


SCRIPT = """
import sys
from pathlib import Path
from agents.runs.workers import run_jobs
from tests.agents import jobs

if __name__ == "__main__":
    folder, do = Path(sys.argv[1]), getattr(jobs, sys.argv[2])
    list(run_jobs(do, [folder / name for name in sys.argv[3:]], lambda steps: None, 2))
"""


def left_after(number: signal.Signals, do: str, folder: Path) -> tuple[int, list[int]]:
    """Return how a process with two workers ended that got a signal, and what is left of them after 10 s."""
    (folder / "parent.py").write_text(SCRIPT)
    words = [sys.executable, str(folder / "parent.py"), str(folder), do, "one", "two"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(words, start_new_session=True, env=environment, stderr=subprocess.DEVNULL)
    try:
        while len(list(folder.glob("*.begun"))) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
        parent.send_signal(number)
        code, end = parent.wait(timeout=60), time.monotonic() + 10
        while (left := session_of(parent.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        return code, left
    finally:
        for pid in session_of(parent.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("number", "do"), [(signal.SIGKILL, "never_told"), (signal.SIGTERM, "until_told")])
def test_no_worker_outlives_its_parent(number: signal.Signals, do: str, tmp_path: Path) -> None:
    code, left = left_after(number, do, tmp_path)
    assert left == []
    assert code != 0
    saved = sorted(path.stem for path in tmp_path.glob("*.saved"))
    assert saved == ([] if number == signal.SIGKILL else ["one", "two"])


SLOW_END = """
import atexit, sys, time
from types import SimpleNamespace
from agents import cli
from agents.loop.callbacks import StopWhen
from agents.runs.interrupt import interruptible

def run(words):
    with interruptible(StopWhen()):
        print("ready", flush=True)
        while True:
            time.sleep(0.01)

def last():
    time.sleep(30)

atexit.register(last)
cli.importlib = SimpleNamespace(import_module=lambda name: SimpleNamespace(run=run))
sys.argv = ["budget", "train"]
sys.exit(cli.main())
"""


def test_the_third_signal_ends_the_process_without_a_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", SLOW_END]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stdout.readline() == "ready\n"
        command.send_signal(signal.SIGINT)
        assert command.stderr.readline() == "\n"
        command.send_signal(signal.SIGINT)
        while command.poll() is None and "interrupted" not in command.stderr.readline():
            pass
        time.sleep(0.1)
        command.send_signal(signal.SIGINT)
        try:
            code = command.wait(timeout=3)
        finally:
            command.kill()
        said = command.stderr.read()
    assert "Traceback" not in said
    assert code == 130


ON_A_TERMINAL = """
import sys, time
from pathlib import Path
from agents.loop.callbacks import StopWhen
from agents.runs.interrupt import interruptible

stop = StopWhen()
with interruptible(stop):
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    print("saving", flush=True)
    Path(sys.argv[1]).write_text(str(stop.reason))
"""


def test_a_closed_terminal_lets_a_training_save(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    words = [sys.executable, "-c", ON_A_TERMINAL, str(tmp_path / "saved")]
    command = subprocess.Popen(words, env=environment, start_new_session=True, preexec_fn=take_terminal, **streams)
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"ready")
    os.close(ours)
    assert (command.wait(timeout=30), (tmp_path / "saved").exists()) == (0, True)
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGHUP))
