"""A search on Ray: what processes of one machine would have done, and what failed is gone on with."""

import dataclasses
import json
import os
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents.cli import main
from agents.report.tradeoff import Comparison
from agents.runs.workers import Advance
from agents.studies import ray_tasks, tradeoff
from agents.studies.entrants import work
from agents.studies.ray_tasks import connected_ray, run_on_ray
from agents.studies.space import space_of
from agents.studies.sweep import run_sweep
from agents.studies.sweep_table import SweepStudy
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.errors import ConfigError
from tests.agents import jobs
from tests.agents.studies.test_sweep import SPACE, config

WORDS = ["sweep", "bexa-sac", "--env", "Pendulum-v1", "--steps", "100", "--configurations", "2", "--finalists", "1"]
WORDS += ["--seeds", "0", "1", "--eval-every", "50", "--eval-episodes", "1", "--episodes", "1", "--workers", "2"]


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # of 15 by default: they would wait for the other tests
        connected = connected_ray("local", 2)
        yield connected
        connected.shutdown()


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    searched(folder)
    return folder


def searched(folder: Path, workers: int = 1, **options: Any) -> SweepStudy:
    wanted = config(steps=100, eval_every=50, configurations=2, workers=workers)
    return run_sweep("BexaSAC", wanted, space_of(tomllib.loads(SPACE)), folder, progress=False, **options)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "sweep.json").read_text())["rows"]


def die_once(entrant: Any, advance: Advance) -> Any:
    """Do the work of an entrant; the process of ``bexa`` is killed after its first checkpoint, the first time."""
    steps, marker = 0, Path(entrant.folder) / "died"

    def on(count: int) -> bool:
        nonlocal steps
        steps += count
        if entrant.method == "bexa" and steps > 40 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(count)

    return work(entrant, on)


def test_a_search_on_ray_is_the_search_in_processes(ray: ModuleType, in_processes: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    folder = tmp_path / "search"
    assert main([*WORDS, "--space", str(tmp_path / "space.toml"), "--folder", str(folder), "--ray", "local"]) == 0
    assert rows(folder) == rows(in_processes)
    assert (folder / "sweep.md").read_text() == (in_processes / "sweep.md").read_text()
    assert files(folder) == files(in_processes)


def test_a_comparison_on_ray_is_the_comparison_in_processes_though_a_worker_is_killed(
    ray: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=("sac:4", "bexa=bexa-sac:4", "coin"),
        seeds=(0,),
        budgets=(0.5,),
        steps=100,
        batch_size=8,
        learning_starts=10,
        episodes=1,
        eval_every=40,
        eval_episodes=1,
    )
    run_tradeoff(dataclasses.replace(config, workers=1), tmp_path / "here", progress=False)
    monkeypatch.setattr(tradeoff, "work", die_once)
    run_tradeoff(config, tmp_path / "ray", progress=False, on=run_on_ray)
    assert (tmp_path / "ray" / "died").exists()
    there, here = (Comparison.read(tmp_path / name).points for name in ("ray", "here"))
    assert [(point.label, point.episodes, point.curve) for point in there] == [
        (point.label, point.episodes, point.curve) for point in here
    ]


def test_a_task_whose_process_ends_each_time_is_lost_and_the_others_go_on(ray: ModuleType, tmp_path: Path) -> None:
    given = [jobs.Job("dies", str(tmp_path)), jobs.Job("lives", str(tmp_path))]
    found = {job.name: str(result) for job, result in run_on_ray(jobs.die_or_return, given, lambda steps: None, 1)}
    assert found == {"dies": "its process was killed, 3 times", "lives": "lives"}


def test_an_error_is_the_one_that_was_raised_and_stops_the_other_tasks(ray: ModuleType, tmp_path: Path) -> None:
    told: list[int] = []
    given = [jobs.Job("waits", str(tmp_path)), jobs.Job("fails", str(tmp_path))]
    with pytest.raises(ConfigError, match=r"^fails is refused$") as raised:
        list(run_on_ray(jobs.fail_or_wait, given, told.append, 2))
    assert type(raised.value) is ConfigError
    assert (tmp_path / "stopped").exists()


def test_a_machine_that_does_not_see_the_folder_trains_nothing(ray: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one that every machine of the cluster sees"):
        ray_tasks._work(None, jobs.Job("one", str(tmp_path / "elsewhere")), None)


def test_an_address_without_a_cluster_is_refused(ray: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"ray='nowhere': cannot connect .* expected 'local', 'auto' or HOST:PORT"):
        connected_ray("nowhere", 2)


def test_ray_is_asked_for_by_its_extra_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*WORDS, "--folder", str(tmp_path / "search"), "--ray", "local"]) == 2
    assert "pip install 'budget-wrappers[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "search").exists()
