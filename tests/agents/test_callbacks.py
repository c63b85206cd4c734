"""Callbacks: called where they say, at the steps they say, without a trace on training."""

import signal
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from agents.loop.agent import OffPolicyAgent
from agents.loop.callbacks import (
    Callback,
    CallbackList,
    Every,
    FunctionCallback,
    ProgressBar,
    StopOnReturn,
    StopWhen,
    callbacks_of,
    load_state_of,
    state_of,
)
from agents.report.video import record_episode, small, write_gif
from agents.runs.interrupt import interruptible
from agents.runs.log import RunFolder
from agents.runs.monitors import Checkpoint, Evaluate, Log, RecordVideo
from budget_wrappers.errors import ConfigError, MissingExtraError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.agents.small import EPISODE, make_agent, make_env, make_vector


class Recorder(Callback):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_training_start(self, agent: OffPolicyAgent) -> None:
        self.calls.append("start")

    def on_step(self, agent: OffPolicyAgent) -> bool:
        self.calls.append(agent.num_timesteps)
        return True

    def on_episode_end(self, agent: OffPolicyAgent, episode: dict[str, Any]) -> None:
        self.calls.append(("episode", episode["length"], agent.num_episodes))

    def on_training_end(self, agent: OffPolicyAgent) -> None:
        self.calls.append("end")


class Drawn(gym.Env):
    """Three steps; every frame is a grey square whose level is the step."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Box(-2, 2, (1,))
    render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps == 3, False, {}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), 60 * self.steps, np.uint8)


def random_agent(**settings: Any) -> OffPolicyAgent:
    """Return an agent that only acts at random: for what does not depend on learning."""
    return make_agent("sac", learning_starts=10_000, **settings)


def weights(agent: OffPolicyAgent) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.actor.parameters()]


# ---- the list -------------------------------------------------------------------------------------------------------


def test_episodes_are_told_before_the_step_that_ended_them() -> None:
    recorder = Recorder()
    random_agent().learn(EPISODE + 1, recorder)
    steps = list(range(1, EPISODE))
    assert recorder.calls == ["start", *steps, ("episode", EPISODE, 1), EPISODE, EPISODE + 1, "end"]


def test_end_is_told_when_training_fails() -> None:
    recorder = Recorder()

    def fail(agent: OffPolicyAgent) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        random_agent().learn(5, [recorder, fail])
    assert recorder.calls == ["start", 1, "end"]


@pytest.mark.parametrize("answer", [None, True, 0, "yes"])
def test_functions_stop_training_by_false_alone(answer: Any) -> None:
    assert random_agent().learn(3, lambda agent: answer).num_timesteps == 3


def test_function_stops_training_by_returning_false() -> None:
    assert random_agent().learn(30, lambda agent: agent.num_timesteps < 7).num_timesteps == 7


def test_one_that_stops_does_not_hide_the_step_from_the_others() -> None:
    recorder = Recorder()
    random_agent().learn(30, [lambda agent: False, recorder])
    assert recorder.calls == ["start", 1, "end"]


def test_what_saves_comes_last() -> None:
    saving, recorder = Checkpoint("nowhere", 10), Recorder()
    assert callbacks_of([saving, recorder]).callbacks == [recorder, saving]


def test_every_kind_of_callback_is_accepted() -> None:
    recorder = Recorder()
    assert callbacks_of(None).callbacks == []
    assert callbacks_of(recorder).callbacks == [recorder]
    kinds = [type(one) for one in callbacks_of([recorder, lambda agent: None], True, 10).callbacks]
    assert kinds == [Recorder, FunctionCallback, ProgressBar]


def test_anything_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"callback=3: expected None, a Callback, a function"):
        callbacks_of(3)


def test_state_goes_back_to_the_callback_it_came_from() -> None:
    stop, other = StopOnReturn(5), StopOnReturn(6)
    stop.returns, other.returns = [1.0], [2.0]
    state = state_of([stop, other])
    fresh = [StopOnReturn(5), StopOnReturn(6)]
    load_state_of(fresh, state)
    assert [callback.returns for callback in fresh] == [[1.0], [2.0]]
    nested = CallbackList([StopOnReturn(5)])
    nested.load_state_dict(CallbackList([stop]).state_dict())
    assert nested.callbacks[0].returns == [1.0]


@pytest.mark.parametrize(("steps", "due"), [(0, 10), (9, 10), (10, 20), (11, 20)])
def test_due_is_the_next_multiple_wherever_a_run_starts(steps: int, due: int) -> None:
    clock = Every(10)
    clock.restart(steps)
    assert clock.due == due


def test_period_below_one_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="every=0: expected at least 1"):
        Every(0)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluation_leaves_no_trace_on_training(tmp_path: Path) -> None:
    plain = make_agent("sac").learn(120)
    env = make_env("Pendulum-v1")
    watched = make_agent("sac").learn(120, Evaluate(env, every=13, episodes=2, best=tmp_path / "best"))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(watched), strict=True))
    assert plain.meter.totals == watched.meter.totals
    assert plain.rng.bit_generator.state == watched.rng.bit_generator.state


def test_evaluation_inside_an_episode_leaves_the_episodes_account_alone() -> None:
    """Training and evaluation wrappers read one meter; the training episode pays for its own actions only."""
    meter = ComputeMeter()
    env, other = (RecordComputeStatistics(make_env("Pendulum-v1"), meter) for _ in range(2))
    episodes = []

    class Episodes(Callback):
        def on_episode_end(self, agent: OffPolicyAgent, episode: dict[str, Any]) -> None:
            episodes.append(episode["compute"]["flops"])

    agent = make_agent("sac", env, meter=meter, learning_starts=0)
    evaluate = Evaluate(other, every=10, episodes=1)
    agent.learn(2 * EPISODE, [Episodes(), evaluate])
    assert episodes == [EPISODE * agent.flops_per_action] * 2
    assert evaluate.curve[0]["flops_per_step"] == agent.flops_per_action


def test_curve_has_a_point_for_every_period_and_the_best_is_kept(tmp_path: Path) -> None:
    evaluate = Evaluate(make_env("Pendulum-v1"), every=50, episodes=1, best=tmp_path / "best.safetensors")
    agent = make_agent("sac").learn(150, evaluate)
    assert [point["step"] for point in evaluate.curve] == [50, 100, 150]
    best = max(evaluate.curve, key=lambda point: point["return"])
    assert evaluate.best_return == best["return"]
    restored = type(agent).load(tmp_path / "best.safetensors", None)
    assert restored.num_timesteps == best["step"]


def test_resumed_evaluation_remembers_the_best(tmp_path: Path) -> None:
    evaluate = Evaluate(make_env("Pendulum-v1"), every=50, episodes=1, best=tmp_path / "best.safetensors")
    evaluate.load_state_dict({"curve": [{"step": 50, "return": 1e9}], "best_return": 1e9})
    random_agent().learn(50, evaluate)
    assert not (tmp_path / "best.safetensors").exists()


# ---- logging, stopping, filming -------------------------------------------------------------------------------------


def test_log_rows_hold_returns_losses_and_flops(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        agent = make_agent("sac").learn(100, Log(folder, every=50))
        first, second = folder.rows()
    assert (first["step"], second["step"]) == (50, 100)
    # Two episodes of 25 steps end in either row.
    assert (first["episodes"], second["episodes"], second["length"]) == (2, 4, EPISODE)
    assert second["flops_learn"] == agent.meter.totals["learn"]
    assert {"loss/critic_loss", "loss/ent_coef", "return"} <= second.keys()
    assert set(second["clock"]) == {"seconds", "steps_per_second"}


def test_log_row_without_an_episode_has_no_return(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        random_agent().learn(10, Log(folder, every=10))
        (row,) = folder.rows()
    assert "return" not in row


def test_training_stops_on_the_mean_of_the_last_episodes() -> None:
    stop = StopOnReturn(threshold=3.0, episodes=2)
    for value, reached in ((9.0, False), (1.0, True), (1.0, False), (5.0, True)):
        # Means of the last two: –, 5, 1, 3.
        stop.on_episode_end(None, {"return": value})
        assert stop.reached is reached
        assert stop.on_step(None) is not reached


def test_film_shows_every_step(tmp_path: Path) -> None:
    random_agent().learn(10, RecordVideo(Drawn(), tmp_path, every=10))
    with Image.open(tmp_path / "step-10.gif") as film:
        levels = []
        for frame in range(film.n_frames):
            film.seek(frame)
            levels.append(film.convert("RGB").getpixel((0, 0))[0])
    assert levels == [0, 60, 120, 180]


def test_film_is_small_enough_to_be_held_in_memory() -> None:
    assert small(np.zeros((480, 960, 3), np.uint8)).size == (320, 160)


def test_film_of_every_third_step_plays_as_long(tmp_path: Path) -> None:
    record_episode(random_agent(), Drawn(), tmp_path / "film.gif", seed=0, every=3)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2  # of steps 0 and 3
        assert film.info["duration"] == 3 * 100  # of ten frames a second


def test_film_leaves_pictures_out_until_it_is_small_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [small(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(16)]
    write_gif(pictures, tmp_path / "whole.gif", 10.0)
    whole = (tmp_path / "whole.gif").stat().st_size
    write_gif(pictures, tmp_path / "film.gif", 10.0, largest=whole // 3)
    assert (tmp_path / "film.gif").stat().st_size <= whole // 3
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames * film.info["duration"] == 16 * 100


def test_environment_that_cannot_draw_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(self: Drawn) -> np.ndarray:
        raise gym.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame`")

    monkeypatch.setattr(Drawn, "render", render)
    with pytest.raises(MissingExtraError, match=r"cannot be drawn.*pip install pygame"):
        record_episode(random_agent(), Drawn(), tmp_path / "film.gif", seed=0)


def test_film_needs_frames(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"render_mode=None: expected 'rgb_array'.*gymnasium.make"):
        random_agent().learn(10, RecordVideo(make_env("Pendulum-v1"), tmp_path, every=10))


def test_progress_bar_shows_steps_and_returns(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(60, silent=False)
    random_agent().learn(60, bar)
    shown = capsys.readouterr().err
    assert "60/60" in shown
    assert "return=" in shown


def test_progress_bar_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    random_agent().learn(30, progress_bar=True)
    assert capsys.readouterr().err == ""


# ---- interrupts -----------------------------------------------------------------------------------------------------


def test_asked_to_stop_training_ends_with_the_episode() -> None:
    stop = StopWhen()
    agent = random_agent().learn(100, [lambda agent: stop.stop() if agent.num_timesteps == 30 else None, stop])
    assert agent.num_timesteps == 2 * EPISODE


def test_asked_to_stop_a_vector_run_ends_with_the_step() -> None:
    stop = StopWhen()
    agent = random_agent(env=make_vector("Pendulum-v1", "SAME_STEP"))
    agent.learn(300, [lambda agent: stop.stop() if agent.num_timesteps == 30 else None, stop])
    assert agent.num_timesteps == 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_second_interrupts(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    stop, before = StopWhen(), signal.getsignal(number)
    with interruptible(stop):
        signal.raise_signal(number)
        assert stop.reason == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before
    assert "then saving" in capsys.readouterr().err
