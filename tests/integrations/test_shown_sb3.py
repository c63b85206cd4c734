"""Each fault that was shown with a model of Stable-Baselines3, as a law; see ``test_shown.py``."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from budget_wrappers.integrations.sb3 import as_sub_policy, flops_per_action, load, metered
from budget_wrappers.integrations.sb3_vec import wrapped
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputePenaltyReward, vector
from tests.integrations.test_shown import perceptron, spent, tried


def test_j1_a_zip_of_sb3_contrib_opens(tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    contrib.TQC("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "model.zip")
    assert type(tried(lambda: load(tmp_path / "model.zip", trust=True))) is contrib.TQC


def test_j2_a_model_of_quantiles_is_metered() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    model, meter = contrib.QRDQN("MlpPolicy", "CartPole-v1", buffer_size=10), ComputeMeter()
    tried(lambda: metered(model, meter))
    acted = spent(meter, lambda: model.predict(np.zeros(4, np.float32), deterministic=True))
    assert acted == 2 * (4 * 64 + 64 * 64 + 64 * 2 * 200)


def test_j3_a_recurrent_model_is_counted_or_refused_by_name() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    told = tried(lambda: flops_per_action(contrib.RecurrentPPO("MlpLstmPolicy", "CartPole-v1")))
    assert isinstance(told, int) or "RecurrentPPO" in str(told)


def test_k1_batch_statistics_are_counted_on_one_row() -> None:
    class Normed(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__(space, 8)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"features_extractor_class": Normed, "net_arch": [8]})
    assert tried(lambda: as_sub_policy(model).flops) == 2 * (4 * 8 + 8 * 8 + 8 * 2)


def test_l1_an_extractor_that_branches_is_accepted_always_or_never() -> None:
    class Branching(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__(space, 16)
            self.a, self.b = nn.Linear(4, 16), perceptron(4, 64, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) if float(x[0, 0]) > 0 else self.b(x)

    def accepted() -> bool:
        model = A2C("MlpPolicy", "CartPole-v1", policy_kwargs={"features_extractor_class": Branching})
        return tried(lambda: metered(model, ComputeMeter())) is model

    assert len({accepted() for _ in range(12)}) == 1


def test_p1_rewards_of_goals_in_hindsight_keep_their_penalty() -> None:
    def box(n: int) -> spaces.Box:
        return spaces.Box(-1, 1, (n,), np.float32)

    class Goal(gym.Env):
        observation_space = spaces.Dict(observation=box(3), achieved_goal=box(2), desired_goal=box(2))
        action_space = box(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.steps = 0
            return self.observation_space.sample(), {}

        def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
            return np.zeros(np.shape(achieved)[:-1])

        def step(self, action: Any) -> Any:
            self.steps += 1
            return self.observation_space.sample(), 0.0, False, self.steps == 8, {}

    meter = ComputeMeter()
    env = ComputePenaltyReward(Goal(), 1e-4, meter=meter)
    model = SAC(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=16, buffer_size=500,
        batch_size=16, train_freq=20, policy_kwargs={"net_arch": [8]},
    )  # fmt: skip
    model = metered(model, meter).learn(80)
    free = float((model.replay_buffer.sample(1000).rewards == 0).float().mean())
    assert free < 0.35  # 16 of 80 actions were random, and free


def test_s1_a_limit_goes_around_a_venv() -> None:
    def limit(envs: Any) -> Any:
        return vector.ComputeLimit(envs, 1000, meter=ComputeMeter())

    told = tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2), limit))
    assert not isinstance(told, Exception), told
