"""Stable-Baselines3's hindsight replay over penalised rewards: goals change, what compute cost does not."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from gymnasium import spaces
from stable_baselines3 import DQN, SAC, HerReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.sb3 import flops_per_action, metered, unmeter
from budget_wrappers.integrations.sb3_vec import wrapped
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction, vector

WEIGHT = 0.01


def box(n: int) -> spaces.Box:
    return spaces.Box(-1, 1, (n,), np.float32)


class Reach(gym.Env):
    """A goal is reached by no one but in hindsight: its reward is −1, and 0 at the very goal."""

    def __init__(self, discrete: bool = False) -> None:
        self.observation_space = spaces.Dict(observation=box(3), achieved_goal=box(2), desired_goal=box(2))
        self.action_space = spaces.Discrete(2) if discrete else box(2)

    def seen(self) -> dict[str, np.ndarray]:
        self.last = {key: self.np_random.uniform(-1, 1, part.shape).astype(np.float32)
                     for key, part in self.observation_space.items()}  # fmt: skip
        return {**self.last, "desired_goal": self.goal}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.goal = 0, self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen(), {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -(np.abs(np.asarray(achieved) - desired).max(-1) > 1e-6).astype(np.float64)

    def step(self, action: Any) -> Any:
        self.steps += 1
        obs = self.seen()
        reward = float(self.compute_reward(obs["achieved_goal"], obs["desired_goal"], {}))
        return obs, reward, False, self.steps == 5, {}


def sac(env: Any, **settings: Any) -> Any:
    kwargs = {"n_sampled_goal": 4, "goal_selection_strategy": "final"}
    return SAC(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=kwargs, learning_starts=10,
        train_freq=20, buffer_size=200, batch_size=8, policy_kwargs={"net_arch": [4]}, device="cpu", seed=0, **settings,
    )  # fmt: skip


def penalties(model: Any, cost: float, n: int = 400) -> set[int]:
    """Return, in multiples of a step's penalty, what sampled rewards lack of the goal's own reward."""
    sample = model.replay_buffer.sample(n)
    achieved, desired = (sample.next_observations[f"{name}_goal"].numpy() for name in ("achieved", "desired"))
    raw = -(np.abs(achieved - desired).max(-1) > 1e-6).astype(float)
    lacks = (raw - sample.rewards.numpy().ravel()) / cost
    assert np.abs(lacks - lacks.round()).max() < 1e-2
    return set(lacks.round().astype(int).tolist())


def test_rewards_of_other_goals_keep_the_penalty_of_their_step() -> None:
    meter = ComputeMeter()
    model = metered(sac(ComputePenaltyReward(Reach(), WEIGHT, meter=meter)), meter).learn(40)
    cost = WEIGHT * flops_per_action(model)
    assert penalties(model, cost) <= {0, 1}
    assert mean_penalty(model, cost) == pytest.approx(30 / 40, abs=0.06)  # 10 of 40 actions were random, and free


def mean_penalty(model: Any, cost: float) -> float:
    sample = model.replay_buffer.sample(2000)
    achieved, desired = (sample.next_observations[f"{name}_goal"].numpy() for name in ("achieved", "desired"))
    raw = -(np.abs(achieved - desired).max(-1) > 1e-6).astype(float)
    return float((raw - sample.rewards.numpy().ravel()).mean() / cost)


def test_penalties_of_a_vector_wrapper_are_kept_too() -> None:
    meter = ComputeMeter()
    venv = wrapped(DummyVecEnv([Reach] * 2), lambda envs: vector.ComputePenaltyReward(envs, WEIGHT, meter=meter))
    model = metered(sac(venv), meter).learn(60)
    assert mean_penalty(model, WEIGHT * flops_per_action(model)) > 0.7


def test_a_penalty_that_begins_later_is_kept_from_then_on() -> None:
    meter = ComputeMeter()
    env = ComputePenaltyReward(Reach(), 0.0, meter=meter)
    model = metered(sac(env), meter).learn(20)
    env.set_weight(WEIGHT)
    model.learn(100, reset_num_timesteps=False)
    assert mean_penalty(model, WEIGHT * flops_per_action(model)) > 0.7


def test_an_environment_that_is_set_later_is_looked_at() -> None:
    meter = ComputeMeter()
    model = metered(sac(Reach()), meter)
    model.set_env(ComputePenaltyReward(Reach(), WEIGHT, meter=meter))
    model.learn(60)
    assert mean_penalty(model, WEIGHT * flops_per_action(model)) > 0.7


def test_the_cost_of_a_choice_is_kept() -> None:
    meter = ComputeMeter()
    rules = [FunctionPolicy(lambda obs, act=act: act, 1 + act, f"rule {act}") for act in (0, 1)]
    env = SubPolicyAction(Reach(discrete=True), rules, hold=1, weight=0.25, meter=meter)
    model = DQN(
        "MultiInputPolicy", RecordComputeStatistics(env, meter), replay_buffer_class=HerReplayBuffer, buffer_size=100,
        learning_starts=10, train_freq=20, batch_size=8, policy_kwargs={"net_arch": [4]}, device="cpu",
    )  # fmt: skip
    assert penalties(metered(model, meter).learn(40), 0.25) <= {1, 2}


@pytest.mark.parametrize("what", ["a floor", "options of several steps"])
def test_what_other_goals_cannot_have_is_refused(what: str) -> None:
    meter = ComputeMeter()
    if what == "a floor":
        model = sac(ComputePenaltyReward(Reach(), WEIGHT, floor=-5.0, meter=meter))
    else:
        rule = FunctionPolicy(lambda obs: 0, 1, "rule")
        env = SubPolicyAction(Reach(discrete=True), [rule], hold=3, weight=0.5, meter=meter)
        model = DQN("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, buffer_size=100, device="cpu")
    with pytest.raises(ConfigError, match=rf"hindsight replay over penalties with {what}"):
        metered(model, meter)


def test_without_penalties_the_replay_samples_what_it_did() -> None:
    sampled = []
    for meter in (None, ComputeMeter()):
        model = sac(Reach())
        model = model if meter is None else metered(model, meter)
        model.learn(30)
        np.random.seed(0)  # noqa: NPY002 - the library draws from it
        sampled.append(model.replay_buffer.sample(64).rewards.numpy())
    np.testing.assert_array_equal(*sampled)
    assert type(model.replay_buffer) is HerReplayBuffer


def test_the_replay_is_pickled_and_left_as_it_was() -> None:
    meter = ComputeMeter()
    model = metered(sac(ComputePenaltyReward(Reach(), WEIGHT, meter=meter)), meter).learn(20)
    restored = pickle.loads(pickle.dumps(model.replay_buffer))
    assert type(restored) is HerReplayBuffer
    unmeter(model)
    assert type(model.replay_buffer) is HerReplayBuffer
