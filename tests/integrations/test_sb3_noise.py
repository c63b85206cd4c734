"""Stable-Baselines3 with ``use_sde=True``: the products of its distribution are charged to whoever acts."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, PPO, SAC

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.sb3 import metered, unmeter
from budget_wrappers.integrations.sb3_retrofit import trained_actor
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics

OBSERVATION = np.array([0.6, -0.8, 1.0], np.float32)


def made(algorithm: type, env: Any = "Pendulum-v1", **policy: Any) -> Any:
    few: dict[str, Any] = {PPO: {"n_steps": 8, "batch_size": 8}, A2C: {"n_steps": 8}, SAC: {"buffer_size": 50}}[
        algorithm
    ]
    return algorithm("MlpPolicy", env, use_sde=True, seed=0, policy_kwargs={"net_arch": [8], **policy}, **few)


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC])
@pytest.mark.parametrize("deterministic", [True, False])
def test_acting_with_state_dependent_noise_is_what_torch_counts(algorithm: type, deterministic: bool) -> None:
    model = made(algorithm)
    with FlopCounterMode(display=False) as counter:
        model.predict(OBSERVATION, deterministic=deterministic)
    metered(model, meter := ComputeMeter())
    model.predict(OBSERVATION, deterministic=deterministic)
    # O = 3, A = 1: 2·(3·8 + 8·1) = 64 of layers, 2·8·1 for the variance, and as much for noise where it is drawn.
    assert meter.take().executed == counter.get_total_flops() == (80 if deterministic else 96)


def test_a_model_with_state_dependent_noise_trains_to_the_same_numbers_and_is_left_as_it_was(tmp_path: Path) -> None:
    meter, plain = ComputeMeter(), made(PPO).learn(16)
    costs: list[float] = []

    class Spy(gym.Wrapper):
        def step(self, action: Any) -> Any:
            transition = self.env.step(action)
            costs.append(float(transition[4]["cost"]))
            return transition

    model = metered(made(PPO, Spy(RecordComputeStatistics(gym.make("Pendulum-v1"), meter))), meter).learn(16)
    assert all(torch.equal(a, b) for a, b in zip(plain.policy.parameters(), model.policy.parameters(), strict=True))
    assert costs == [96.0] * 16
    model.save(tmp_path / "model.zip")
    PPO.load(tmp_path / "model.zip")
    unmeter(model)
    assert not {"get_noise", "proba_distribution"} & set(vars(model.policy.action_dist))


def test_retrofit_names_the_noise_that_it_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"use_sde=True clips .*clip_mean"):
        trained_actor(made(SAC))
    action = made(SAC, clip_mean=0.0)
    said = trained_actor(action).action_map.actions(np.array([[0.0]], np.float32))
    assert said.tolist() == [[0.0]]
