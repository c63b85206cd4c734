"""Numbers as they are stored: finite in float32, which replays and networks hold, at every door into a replay."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import DQN, SAC
from agents.replay.buffers import ReplayBuffer
from agents.replay.demonstrations import write_demonstrations
from agents.replay.hindsight import HindsightReplay, goal_reward
from agents.replay.option_replay import OptionReplay
from agents.replay.prioritized import PrioritizedReplay
from budget_wrappers.errors import NonFiniteError
from tests.agents.test_hindsight import GOALS, Line
from tests.gymnasium_versions import AutoresetMode, sync

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")

BEYOND = 1e39
"""A finite float64 number; float32 ends at 3.4e38 and holds infinity in its place."""


class Paying(gym.Env):
    """Pays ``reward`` and shows ``last`` at the third and last step of each episode, ordinary numbers before."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, reward: float = 0.0, last: float = 0.0, first: float = 0.0) -> None:
        self.reward, self.last, self.first, self.episodes = reward, last, first, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.steps, self.episodes = 0, self.episodes + 1
        return np.full(2, self.first if self.episodes > 1 else 0.0, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        over = self.steps == 3
        return np.full(2, self.last if over else 0.0, np.float32), self.reward if over else 0.0, over, False, {}


def small_sac(env: Any, **settings: Any) -> SAC:
    return SAC(env, net_arch=(4,), learning_starts=100, buffer_size=100, **settings)


# ---- rewards and observations while learning ------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [BEYOND, -BEYOND])
def test_reward_beyond_float32_is_refused_at_its_step(reward: float) -> None:
    agent = small_sac(Paying(reward))
    with pytest.raises(NonFiniteError, match=r"reward at environment step 3 is -?1e\+39: .*float32.*TransformReward"):
        agent.learn(10)
    assert (agent.num_timesteps, len(agent.replay)) == (2, 2)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_reward_beyond_float32_is_refused_in_a_vector_environment(mode: str) -> None:
    agent = small_sac(sync([Paying, lambda: Paying(BEYOND)], AutoresetMode[mode]))
    with pytest.raises(NonFiniteError, match=r"reward at environment step 3 is .*float32"):
        agent.learn(20)
    assert len(agent.replay) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_last_observation_of_an_episode_is_looked_at_where_the_vector_environment_hides_it(value: float) -> None:
    agent = small_sac(sync([Paying, lambda: Paying(last=value)], AutoresetMode.SAME_STEP))
    with pytest.raises(NonFiniteError, match=r"last observation of an episode at environment step 3"):
        agent.learn(20)
    assert len(agent.replay) == 4


def test_observation_of_a_reset_within_a_vector_environment_is_looked_at() -> None:
    agent = small_sac(sync([Paying, lambda: Paying(first=np.nan)], AutoresetMode.DISABLED))
    with pytest.raises(NonFiniteError, match=r"observation of reset at environment step 3"):
        agent.learn(20)


def test_windows_that_would_overflow_are_refused_when_their_rewards_are_stored() -> None:
    agent = small_sac(Paying(2e38), n_step=3)  # 3 · 2e38 is 6e38; each alone is below 3.4e38
    with pytest.raises(
        NonFiniteError, match=r"reward of transition 2 is array\(\[2\.e\+38\]\).*at most 1\.13e\+38.*n_step"
    ):
        agent.learn(10)
    assert len(small_sac(Paying(1e38), n_step=3).learn(10).replay) == 10


def test_scaled_rewards_that_would_overflow_are_refused_when_they_are_stored() -> None:
    agent = small_sac(Paying(1e36), reward_scale=1e3)
    with pytest.raises(
        NonFiniteError, match=r"reward of transition 2 is array\(\[1\.e\+36\]\).*at most 3\.4e\+35.*reward_scale"
    ):
        agent.learn(10)
    assert len(small_sac(Paying(1e36), reward_scale=1e-3).learn(10).replay) == 10


# ---- replays of every kind ------------------------------------------------------------------------------------------


def transition(**given: Any) -> dict[str, np.ndarray]:
    """Return one transition of two observed numbers and a discrete action."""
    row, flag = np.zeros((1, 2), np.float32), np.array([False])
    ordinary = {
        "observation": row,
        "action": np.array([0]),
        "reward": np.zeros(1),
        "next_observation": row,
        "terminated": flag,
        "truncated": flag,
    }
    return ordinary | {name: np.array([value]) for name, value in given.items()}


def replays() -> Iterator[tuple[str, Any]]:
    yield "plain", ReplayBuffer(8, (2,), (), discrete=True)
    yield "prioritized", PrioritizedReplay(8, (2,), (), discrete=True)
    yield "hindsight", HindsightReplay(8, (2,), (), GOALS, lambda achieved, desired: achieved[:, 0], discrete=True)


@pytest.mark.parametrize(("kind", "replay"), list(replays()), ids=[kind for kind, _ in replays()])
@pytest.mark.parametrize(
    "wrong", [{"reward": BEYOND}, {"observation": [0.0, BEYOND]}, {"next_observation": [np.inf, 0.0]}], ids=str
)
def test_replay_stores_nothing_of_a_transition_that_is_not_finite_in_float32(
    kind: str, replay: Any, wrong: dict[str, Any]
) -> None:
    before = replay.position, getattr(replay, "_stored", 0), getattr(getattr(replay, "tree", None), "total", 0.0)
    with pytest.raises(NonFiniteError, match=r"of transition \d is array.*float32"):
        replay.add(**transition(**wrong))
    assert before == (
        replay.position,
        getattr(replay, "_stored", 0),
        getattr(getattr(replay, "tree", None), "total", 0.0),
    )


def test_continuous_action_that_is_not_finite_is_not_stored() -> None:
    replay = ReplayBuffer(8, (2,), (1,))
    with pytest.raises(NonFiniteError, match=r"the action of transition 0"):
        replay.add(**transition(action=[np.nan]))
    assert len(replay) == 0


def test_option_that_is_not_finite_leaves_no_duration_behind() -> None:
    options = OptionReplay(ReplayBuffer(8, (2,), (), discrete=True), "duration")
    given = transition(reward=BEYOND)
    given["option"] = given.pop("action")
    with pytest.raises(NonFiniteError, match="float32"):
        options.add_option(**given, duration=7)
    assert (len(options), float(options.duration[0])) == (0, 1.0)


@pytest.mark.parametrize("paid", [BEYOND, np.nan])
def test_reward_of_another_goal_is_looked_at_in_float32(paid: float) -> None:
    env = Line()
    env.compute_reward = lambda achieved, desired, info: np.full(len(achieved), paid)
    with pytest.raises(NonFiniteError, match=r"reward that compute_reward returns for other goals"):
        goal_reward(env)(np.zeros((3, 1)), np.zeros((3, 1)))


def test_reward_of_another_goal_times_the_scale_is_finite() -> None:
    def paid(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        return np.full(len(achieved), 1e38, dtype=np.float32)  # 1e38 · 10 is above 3.4e38, the largest of float32

    for scale, refusal in (
        (1.0, nullcontext()),
        (10.0, pytest.raises(NonFiniteError, match=r"compute_reward.*3.4e\+37")),
    ):
        replay = HindsightReplay(8, (2,), (), GOALS, paid, discrete=True, reward_scale=scale)
        replay.add(**transition(), streams=(0,))
        replay.forget_unfinished()
        with refusal:
            replay.rewards_under(torch.tensor([0]), torch.zeros(1, 1))


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_priorities_take_no_error_that_is_not_finite(error: float) -> None:
    replay = PrioritizedReplay(8, (2,), (), discrete=True)
    for _ in range(4):
        replay.add(**transition())
    with pytest.raises(NonFiniteError, match=r"temporal-difference error is (nan|inf).*diverged"):
        replay.update_priorities(torch.arange(2), torch.tensor([1.0, error]))
    assert replay.tree.total == 4.0  # four new transitions of priority 1


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_demonstrations_that_no_replay_can_hold_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = Paying(BEYOND)
    with pytest.raises(NonFiniteError, match=r"reward of step 3 of the episode with seed 0 is 1e\+39.*float32"):
        write_demonstrations("odd/numbers-v0", small_sac(env), env, episodes=1)
    assert not list(tmp_path.glob("odd/*"))


def test_whole_data_set_is_looked_at_before_it_fills_a_replay() -> None:
    given = {name: np.repeat(value, 3, 0) for name, value in transition().items()}
    given["reward"] = np.array([0.0, BEYOND, 0.0])
    replay = ReplayBuffer(8, (2,), (), discrete=True)
    with pytest.raises(NonFiniteError, match="float32"):
        replay.fill(type("Transitions", (), given))
    assert len(replay) == 0


def test_numbers_that_float32_holds_are_stored_as_before() -> None:
    agent = DQN(gym.make("CartPole-v1"), net_arch=(4,), learning_starts=100, buffer_size=100)
    largest = float(np.finfo(np.float32).max)
    agent.replay.add(*transition(observation=[largest] * 4, next_observation=[-largest] * 4, reward=largest).values())
    assert agent.replay.reward[0] == agent.replay.observation[0].max() == largest
