"""Runs that stop within an episode are trained on to the same numbers; episodes that do not end can be saved."""

import dataclasses
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents import SAC, TD3
from agents.loop.callbacks import FunctionCallback
from agents.loop.checkpoint import read_header
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.runs.workers import progress_bar
from benchmarks.resume import differences
from tests.agents.test_resume import Killed
from tests.agents.test_resume import finished as finished_run

SETTINGS = {"net_arch": (4,), "batch_size": 8, "learning_starts": 70, "buffer_size": 500}
CONFIG = RunConfig(
    "Pendulum-v1",
    steps=125,
    max_episode_steps=25,
    eval_every=60,
    eval_episodes=1,
    log_every=40,
    checkpoint_every=30,
    tensorboard=False,
)
ENDLESS = f"{__name__}:tests/Endless-v0"


class Endless(gym.Env):
    """Episodes that do not end; after 5,000 steps whoever steps has gone too far."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        assert self.steps < 5_000, "nothing has stopped the episode"
        return np.zeros(2, np.float32), 0.0, False, False, {}


gym.register("tests/Endless-v0", entry_point=Endless)

RANDOM = {"net_arch": (4,), "learning_starts": 100_000, "buffer_size": 100}
"""An agent that only explores: its steps cost next to nothing."""


def endless(**changes: Any) -> RunConfig:
    return RunConfig(
        **{
            "env": ENDLESS,
            "steps": 4_000,
            "eval_every": 0,
            "log_every": 1_000,
            "checkpoint_every": 50,
            "tensorboard": False,
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Let signals that nothing handles do nothing, instead of ending the test session."""
    before = {number: signal.signal(number, lambda number, frame: None) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def at(step: int, do: Callable[[], Any]) -> FunctionCallback:
    def on_step(agent: Any) -> None:
        if agent.num_timesteps == step:
            do()

    return FunctionCallback(on_step)


def trained_on(folder: Path, steps: int, agent: Any = SAC) -> int:
    """Train the run of ``folder`` up to ``steps`` and return the step that it went on from."""
    with Run.resume(agent, folder, steps=steps, trust=True) as run:
        begun = run.agent.num_timesteps
        assert run.train()
    return begun


def finished(folder: Path, config: RunConfig = CONFIG, agent: Any = SAC, settings: Any = SETTINGS) -> Path:
    return finished_run(folder, config, agent, settings)


# ---- more steps for a run that has ended ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "whole")


# Episodes of 25 steps, a checkpoint at the first end after every 30. 110: the last end is at 100. 90: it is at 75.
@pytest.mark.parametrize(("steps", "every", "end"), [(110, 30, 100), (90, 30, 75), (110, 1_000, 100)])
def test_a_run_that_ended_within_an_episode_is_trained_on_as_if_it_had_not(
    steps: int, every: int, end: int, whole: Path, tmp_path: Path
) -> None:
    part = finished(tmp_path / "part", dataclasses.replace(CONFIG, steps=steps, checkpoint_every=every))
    assert read_header(part / "checkpoint.safetensors")["counters"]["num_timesteps"] == steps
    begun = trained_on(part, CONFIG.steps)
    assert differences(whole, part) == []
    assert begun == end


def test_returns_over_several_steps_are_those_of_a_run_that_did_not_end(tmp_path: Path) -> None:
    settings = {**SETTINGS, "n_step": 3}
    one = finished(tmp_path / "one", agent=TD3, settings=settings)
    part = finished(tmp_path / "part", dataclasses.replace(CONFIG, steps=111), TD3, settings)
    trained_on(part, CONFIG.steps, TD3)
    assert differences(one, part) == []


SEVERAL = dataclasses.replace(CONFIG, n_envs=2)


@pytest.fixture(scope="module")
def whole_vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "whole", SEVERAL)


def test_a_vector_run_is_trained_on_from_its_last_checkpoint(whole_vector: Path, tmp_path: Path) -> None:
    part = finished(tmp_path / "part", dataclasses.replace(SEVERAL, steps=100))
    begun = trained_on(part, CONFIG.steps)
    assert differences(whole_vector, part) == []
    assert begun == 90


def test_an_interrupted_vector_run_goes_on_as_if_it_was_not(whole_vector: Path, tmp_path: Path) -> None:
    with Run.start(SAC, SETTINGS, SEVERAL, tmp_path / "part") as run:
        run.alongside.append(at(100, lambda: signal.raise_signal(signal.SIGINT)))
        assert not run.train()
    trained_on(tmp_path / "part", CONFIG.steps)
    assert differences(whole_vector, tmp_path / "part") == []


def test_a_run_that_is_killed_while_it_is_trained_on_goes_on_from_the_same_place(whole: Path, tmp_path: Path) -> None:
    def kill() -> None:
        raise Killed

    part = finished(tmp_path / "part", dataclasses.replace(CONFIG, steps=110, checkpoint_every=70))
    with Run.resume(SAC, part, steps=CONFIG.steps, trust=True) as run, pytest.raises(Killed):
        run.alongside.append(at(115, kill))
        run.train()
    assert trained_on(part, CONFIG.steps) == 100
    assert differences(whole, part) == []


def test_a_finished_run_keeps_what_it_needs_to_go_on_and_no_more(whole: Path, tmp_path: Path) -> None:
    part = finished(tmp_path / "part", dataclasses.replace(CONFIG, steps=110))
    assert sorted(path.name for path in part.glob("*.safetensors")) == [
        "best.safetensors",
        "boundary.safetensors",
        "checkpoint.safetensors",
    ]
    trained_on(part, CONFIG.steps)
    assert not (part / "boundary.safetensors").exists()
    assert not (whole / "boundary.safetensors").exists()


# ---- episodes that do not end ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:a checkpoint was due")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_an_endless_episode_within_1000_steps_and_saves_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    with Run.start(SAC, RANDOM, endless(checkpoint_every=3_000), tmp_path / "run") as run:
        run.alongside.append(at(30, lambda: signal.raise_signal(number)))
        assert not run.train()
        assert run.agent.num_timesteps == 30 + 1_000
    with Run.resume(SAC, tmp_path / "run", steps=1_200, trust=True) as run:
        assert run.agent.num_timesteps == 30 + 1_000
        assert run.within_episode
        assert run.train()


def test_an_endless_episode_is_saved_now_and_then_and_the_remedy_is_named(tmp_path: Path) -> None:
    def kill() -> None:
        raise Killed

    with Run.start(SAC, RANDOM, endless(), tmp_path / "run") as run, pytest.raises(Killed):
        run.alongside.append(at(1_220, kill))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.train()
    said = [str(warning.message) for warning in caught if "--max-episode-steps" in str(warning.message)]
    assert len(said) == 1
    assert "a checkpoint was due at step 50 and no episode has ended since" in said[0]
    # Due at 50; from 50 + 1,000 on every 50 steps: at 1,050, 1,100, 1,150 and 1,200.
    with Run.resume(SAC, tmp_path / "run", trust=True) as run:
        assert run.agent.num_timesteps == 1_200
        assert run.within_episode


def test_an_episode_with_a_time_limit_is_saved_at_its_end_alone(tmp_path: Path) -> None:
    config = endless(max_episode_steps=1_300, steps=1_250)
    exists: list[bool] = []
    said = pytest.warns(UserWarning, match=r"nothing is saved before one does; pass --max-episode-steps")
    with Run.start(SAC, RANDOM, config, tmp_path / "run") as run, said:
        run.alongside.append(at(1_200, lambda: exists.append((tmp_path / "run/checkpoint.safetensors").exists())))
        run.train()
    assert exists == [False]


def test_a_signal_ends_an_endless_evaluation(tmp_path: Path) -> None:
    with Run.start(SAC, RANDOM, endless(eval_every=20), tmp_path / "run") as run:
        step = type(run.evaluation_env.unwrapped).step

        def signalling(self: Endless, action: np.ndarray) -> Any:
            if self is run.evaluation_env.unwrapped and self.steps == 10:
                signal.raise_signal(signal.SIGTERM)
            return step(self, action)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Endless, "step", signalling)
            try:
                ended = run.train()
            except AssertionError as error:
                ended = str(error)
    assert ended is False
    with Run.resume(SAC, tmp_path / "run", trust=True) as run:
        assert run.agent.num_timesteps == 20 + 1_000


# ---- signs of life --------------------------------------------------------------------------------------------------


def test_a_bar_moves_on_after_what_a_resumed_training_tells_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1_000, "sweep", True) as advance:
        time.sleep(0.15)  # a bar is drawn ten times a second at most
        advance(500)
        capsys.readouterr()
        time.sleep(0.15)
        advance(10)
        assert "510/1.00k" in capsys.readouterr().err


def test_a_log_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bar(1_000, "sweep") as advance:
        for second in range(1, 31):
            now[0] = float(second)
            advance(10)
    # Distances double from 5 to 60 seconds: 5, 5 + 10; the next is due at 35.
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 50 of 1,000 steps (5%), 10 steps a second",
        "sweep: 150 of 1,000 steps (15%), 10 steps a second",
    ]


def test_a_training_without_a_terminal_writes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Run.start(SAC, RANDOM, endless(steps=100), tmp_path / "run") as run:
        run.alongside.append(at(41, lambda: now.__setitem__(0, 6.0)))
        run.train(progress_bar=True)
    assert "train: 60 of 100 steps (60%)" in capsys.readouterr().err
