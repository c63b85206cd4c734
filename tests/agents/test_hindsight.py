"""Hindsight: relabelled goals are ones that the same episode reached later, paid as the environment pays them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import DQN, SAC, TD3
from agents.replay.hindsight import GoalSlices, HindsightReplay, goal_slices
from budget_wrappers.errors import ConfigError, SpaceError
from tests.gymnasium_versions import AutoresetMode, sync

GOALS = GoalSlices(slice(0, 1), slice(1, 2))


class Line(gym.Env):
    """Walk on the integers to a goal; joined observations are (achieved, desired, position).

    Args:
        discrete: actions 0 and 1 step down and up; else the sign of a number does.
        length: steps of an episode.
    """

    def __init__(self, discrete: bool = True, length: int = 6) -> None:
        box = spaces.Box(-10.0, 10.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.t, self.place, self.goal = 0, 0.0, float(self.np_random.choice([-4, -3, 3, 4]))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        self.t += 1
        self.place += 1.0 if np.asarray(action).reshape(-1)[0] > 0 else -1.0
        observation = self._observe()
        reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})
        return observation, float(reward), False, self.t == self.length, {}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: dict) -> np.ndarray:
        """Return 0 at the goal and −1 elsewhere, for one pair of goals or a batch."""
        return -(np.abs(achieved - desired).max(-1) > 0.5).astype(np.float32)

    def _observe(self) -> dict[str, np.ndarray]:
        place, goal = np.array([self.place], np.float32), np.array([self.goal], np.float32)
        return {"observation": place, "achieved_goal": place, "desired_goal": goal}


def reward_of(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Return a reward that tells both goals."""
    return (1000 * achieved + desired)[:, 0]


def replay_of_numbers(capacity: int, relabelled: int = 4) -> HindsightReplay:
    """Return a replay in which transition ``i`` achieves ``i + 1`` next and asked for −1."""
    return HindsightReplay(capacity, (2,), (), GOALS, reward_of, relabelled, discrete=True, gamma=0.9)


def add(replay: HindsightReplay, number: int, stream: int, over: bool) -> None:
    """Store transition ``number``."""
    flag = np.array([False])
    before, after = (np.array([[shown, -1.0]], np.float32) for shown in (number, number + 1))
    replay.add(before, np.array([0]), np.array([-7.0]), after, flag, np.array([over]), (stream,))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(3, 40), streams=st.integers(1, 3), steps=st.integers(1, 120))
def test_goals_are_from_the_future_of_the_same_episode(seed: int, capacity: int, streams: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    replay = replay_of_numbers(capacity)
    open_episodes: dict[int, list[int]] = {}
    episode_of: dict[int, list[int]] = {}
    for number in range(steps):
        stream, over = int(rng.integers(streams)), bool(rng.random() < 0.2)
        add(replay, number, stream, over)
        open_episodes.setdefault(stream, []).append(number)
        if over:
            episode = open_episodes.pop(stream)
            episode_of |= dict.fromkeys(episode, episode)
    finished = {number for number in episode_of if number >= steps - capacity}
    assert len(replay) == len(finished)
    if not finished:
        return
    batch = replay.sample(50, torch.Generator().manual_seed(seed))
    shown, asked = batch.observation[:, 0].int().tolist(), batch.observation[:, 1].tolist()
    assert set(shown) <= finished
    # k = 4: 4 of 5 rows, the first 40 of 50, have another goal, achieved after some step j >= i of the same episode.
    for row in range(40):
        future = [later + 1 for later in episode_of[shown[row]] if later >= shown[row]]
        assert asked[row] in future
        assert batch.reward[row] == 1000 * (shown[row] + 1) + asked[row]
    assert asked[40:] == [-1.0] * 10
    assert batch.reward[40:].tolist() == [-7.0] * 10
    assert torch.equal(batch.next_observation[:, 1], batch.observation[:, 1])
    assert batch.discount.tolist() == pytest.approx([0.9] * 50)


def test_future_is_uniform() -> None:
    replay = replay_of_numbers(8)
    for number in range(4):
        add(replay, number, 0, number == 3)
    future = replay._future(torch.zeros(40_000, dtype=torch.int64), torch.Generator().manual_seed(0))
    # A count of 10,000 has a standard deviation of √(40,000·¼·¾) = 87.
    assert (torch.bincount(future, minlength=4) - 10_000).abs().max() < 4 * 87


def test_sampling_leaves_the_storage_as_it_was() -> None:
    replay = replay_of_numbers(8)
    for number in range(8):
        add(replay, number, 0, number % 4 == 3)
    before = {name: getattr(replay, name).clone() for name in replay.arrays}
    replay.sample(32, torch.Generator().manual_seed(0))
    assert all(torch.equal(before[name], getattr(replay, name)) for name in replay.arrays)


def test_unfinished_episode_is_not_sampled_until_it_is_closed() -> None:
    replay = replay_of_numbers(8)
    for number in range(3):
        add(replay, number, 0, False)
    assert len(replay) == 0
    replay.forget_unfinished()
    assert len(replay) == 3


def test_state_round_trip_draws_the_same() -> None:
    replay, other = replay_of_numbers(10), replay_of_numbers(10)
    for number in range(17):
        add(replay, number, number % 2, number % 7 > 4)
    other.load_state_dict(replay.state_dict())
    assert len(replay) == len(other)
    for _ in range(2):
        one, two = (one.sample(30, torch.Generator().manual_seed(1)) for one in (replay, other))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        for target in (replay, other):
            add(target, 100, 0, True)


def test_goals_stand_where_the_joined_observation_has_them() -> None:
    part = spaces.Box(-1.0, 1.0, (3,), np.float32)
    space = spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (25,)), "desired_goal": part, "achieved_goal": part})
    # A Dict is ordered by its keys: achieved_goal, desired_goal, observation.
    assert goal_slices(space) == (slice(0, 3), slice(3, 6))
    agent = SAC(Line(discrete=False), hindsight=4, buffer_size=100)
    joined = agent.to_array({"observation": [1.0], "desired_goal": [2.0], "achieved_goal": [3.0]})
    assert joined.tolist() == [3.0, 2.0, 1.0]
    assert agent.observation_shape == (3,)


def test_agent_that_never_saw_a_goal_learns_to_reach_one() -> None:
    agent = DQN(
        Line(),
        hindsight=4,
        seed=0,
        net_arch=(32, 32),
        learning_rate=3e-3,
        gamma=0.8,
        learning_starts=60,
        train_freq=1,
        target_update_interval=20,
        exploration_fraction=1.0,
        exploration_final_eps=0.5,
        buffer_size=5000,
    ).learn(1200)
    reached = []
    env = Line()
    for episode in range(8):
        observation, _ = env.reset(seed=episode)
        rewards = []
        for _ in range(env.length):
            observation, reward, *_ = env.step(agent.predict(observation)[0])
            rewards.append(reward)
        reached.append(0.0 in rewards)
    assert all(reached)


@pytest.mark.parametrize("agent_class", [SAC, TD3])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_continuous_agents_learn_from_goals_of_a_vector_environment(agent_class: type, mode: AutoresetMode) -> None:
    env = sync([lambda: Line(discrete=False)] * 2, mode)
    agent = agent_class(env, hindsight=4, net_arch=(8,), batch_size=10, learning_starts=4, buffer_size=100).learn(40)
    assert agent.num_updates > 0
    held = agent.replay.observation[: agent.replay.size], agent.replay.next_observation[: agent.replay.size]
    # Every stored step is one of the walk: the place changes by one, the goal not at all.
    assert (held[1][:, 2] - held[0][:, 2]).abs().eq(1).all()
    assert torch.equal(held[0][:, 1], held[1][:, 1])


def test_observations_with_goals_work_without_hindsight() -> None:
    agent = DQN(Line(), net_arch=(8,), learning_starts=4, buffer_size=100).learn(20)
    assert type(agent.replay).__name__ == "ReplayBuffer"
    assert agent.predict(Line().reset(seed=0)[0])[0] in (0, 1)


def test_observation_without_goals_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"hindsight got the observation space Box.*achieved_goal and desired_goal"):
        DQN(gym.make("CartPole-v1"), hindsight=4)


def test_observation_that_lacks_an_entry_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"the observation has .'observation'.: expected a dictionary with"):
        DQN(Line(), hindsight=4).predict({"observation": np.zeros(1)})


def test_environment_that_cannot_pay_other_goals_is_refused() -> None:
    class Mute(gym.Env):
        observation_space = Line().observation_space
        action_space = spaces.Discrete(2)

    with pytest.raises(ConfigError, match=r"has no compute_reward"):
        DQN(Mute(), hindsight=4)


def test_longer_returns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"n_step=3 with hindsight: expected n_step=1"):
        DQN(Line(), hindsight=4, n_step=3)
