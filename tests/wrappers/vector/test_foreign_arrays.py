"""Vector wrappers over wrappers that hand out tensors, or infos as a list, tell what they tell without these."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList

from budget_wrappers.errors import SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import needs_masks, sync
from tests.wrappers.vector.episodes import MODES


class Tensors(VectorWrapper):
    """What NumpyToTorch does, in every autoreset mode: rewards, flags and infos become tensors."""

    def reset(self, **kwargs: Any) -> Any:
        obs, infos = self.env.reset(**kwargs)
        return torch.as_tensor(obs), tensors_in(infos)

    def step(self, actions: Any) -> Any:
        obs, rewards, terminations, truncations, infos = self.env.step(np.asarray(actions))
        return *map(torch.as_tensor, (obs, rewards, terminations, truncations)), tensors_in(infos)


class Brains(VectorWrapper):
    """Rewards in bfloat16, which numpy lacks, and flags as bytes, as accelerators keep them."""

    def step(self, actions: Any) -> Any:
        obs, rewards, *flags, infos = self.env.step(actions)
        return obs, torch.as_tensor(rewards).bfloat16(), *(torch.as_tensor(flag).byte() for flag in flags), infos


def tensors_in(infos: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tensors_in(value)
        if isinstance(value, dict)
        else value
        if value.dtype == object
        else torch.as_tensor(value)
        for key, value in infos.items()
    }


def recorded(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    return vector.RecordComputeStatistics(envs, meter)


def limited(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    return recorded(vector.BudgetAwareObservation(vector.ComputeLimit(envs, 45, meter=meter)), meter)


def penalised(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    return recorded(vector.ComputePenaltyReward(envs, 0.125, meter=meter), meter)


def chosen(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    policies = [FunctionPolicy(lambda obs, act=act: act, 8 + 4 * act, f"rule {act}") for act in (0, 1)]
    return recorded(vector.SubPolicyAction(envs, policies, weight=0.5, meter=meter), meter)


def delayed(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    return recorded(vector.ComputeDelayAction(envs, [(8, 1.0), (12, 30_000.0)], period=0.02, meter=meter), meter)


def with_cost(envs: VectorEnv, meter: ComputeMeter) -> VectorEnv:
    return vector.ComputeVectorReward(envs, meter)


STACKS = [recorded, limited, penalised, chosen, delayed, with_cost]


def story(inside: Callable[[VectorEnv], VectorEnv], stack: Any, mode: str) -> list[Any]:
    """Return all that nine steps hand out, in episodes of 4 steps at most."""
    meter = ComputeMeter("tests")
    envs = sync([lambda: gym.make("CartPole-v1", max_episode_steps=4)] * 2, mode)
    envs = stack(inside(envs), meter)
    told: list[Any] = [[np.asarray(part) if part is not None else None for part in envs.reset(seed=0)[:1]]]
    for _ in range(9):
        if stack is not chosen:
            meter.add(20, "policy", rows=2, by_row=[8, 12])
        obs, *rest = envs.step(np.array([0, 1]))
        told.append([np.asarray(obs), *rest])
        if mode == "Disabled" and (over := rest[1] | rest[2]).any():
            told.append([np.asarray(envs.reset(options={"reset_mask": over})[0])])
    return told


@needs_masks
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.__name__)
@pytest.mark.parametrize("inside", [Tensors, DictInfoToList], ids=["tensors", "list of infos"])
def test_numbers_are_those_without_the_wrapper_inside(inside: Any, stack: Any, mode: str) -> None:
    try:
        told = story(inside, stack, mode)
    except (AttributeError, TypeError, RuntimeError, DeprecationWarning) as error:
        told = [repr(error)]
    expected = story(lambda envs: envs, stack, mode)
    assert data_equivalence(told, expected), told[:1]


def test_rewards_of_a_type_that_numpy_lacks_and_flags_that_are_bytes_are_understood() -> None:
    meter = ComputeMeter()
    envs = recorded(Brains(sync([lambda: gym.make("CartPole-v1", max_episode_steps=1)], "NextStep")), meter)
    envs.reset(seed=0)
    meter.add(10)
    try:
        _, rewards, _, truncations, infos = envs.step(np.array([0]))
    except (TypeError, DeprecationWarning) as error:
        rewards = truncations = infos = error
    assert (np.asarray(rewards).tolist(), np.asarray(truncations).tolist()) == ([1.0], [True])
    assert infos["compute"]["flops"].tolist() == [10.0]


def test_wrappers_that_convert_may_stand_between_ours() -> None:
    meter = ComputeMeter()
    envs = sync([lambda: gym.make("CartPole-v1", max_episode_steps=2)] * 2, "NextStep")
    envs = recorded(Tensors(vector.ComputePenaltyReward(envs, 0.5, meter=meter)), meter)
    envs.reset(seed=0)
    told = []
    for _ in range(2):
        meter.add(6, rows=2, by_row=[2, 4])
        try:
            told.append(envs.step(np.array([0, 1])))
        except (AttributeError, TypeError, DeprecationWarning) as error:
            told.append(error)
    assert not isinstance(told[-1], Exception)
    assert told[-1][-1]["compute"]["return_penalised"].tolist() == [2 - 0.5 * 4, 2 - 0.5 * 8]


@pytest.mark.parametrize("wrong", [np.zeros(3, bool), np.zeros(2), None], ids=["three", "floats", "none"])
def test_flags_that_are_not_one_for_each_environment_are_named(wrong: Any) -> None:
    class Wrong(VectorWrapper):
        def step(self, actions: Any) -> Any:
            obs, rewards, _, truncations, infos = self.env.step(actions)
            return obs, torch.as_tensor(rewards), wrong, truncations, infos

    envs = recorded(Wrong(sync([lambda: gym.make("CartPole-v1")] * 2, "NextStep")), ComputeMeter())
    envs.reset(seed=0)
    with pytest.raises(SpaceError, match=r"terminations or truncations are .*expected 2 booleans"):
        envs.step(np.array([0, 1]))
