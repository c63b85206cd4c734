"""Bad input: a specific exception at the earliest moment, with the value, what was expected and what to do.

One test a row of the list in the architecture's section of that name; other modules test the rest of each error.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents import DQN, SAC, TD3
from agents.loop.agent import OffPolicyAgent
from agents.loop.checkpoint import save_agent
from agents.loop.collect import require_finite
from agents.replay.dataset import open_dataset
from budget_wrappers.errors import (
    BudgetError,
    CheckpointError,
    ConfigError,
    CostError,
    InfeasibleBudgetError,
    MissingExtraError,
    NonFiniteError,
    SpaceError,
    UncountableError,
    UntrustedFileError,
)
from budget_wrappers.functional.costs import validate_cost
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.policies import SubPolicies
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, SubPolicyAction
from tests.agents.small import make_agent, make_env


class Scripted(gym.Env):
    """Returns what it is told after ``good`` ordinary steps."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, observation: Any = (0.0, 0.0), reward: float = 0.0, good: int = 3) -> None:
        self.observation, self.reward, self.good = observation, reward, good

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        if self.steps <= self.good:
            return np.zeros(2, np.float32), 0.0, False, False, {}
        return np.array(self.observation, np.float32), self.reward, False, False, {}


def small_sac(env: gym.Env) -> OffPolicyAgent:
    return SAC(env, net_arch=(4,), learning_starts=100, buffer_size=100)


def with_observation(space: gym.Space) -> gym.Env:
    env = Scripted()
    env.observation_space = space
    return env


def with_action(space: gym.Space) -> gym.Env:
    env = Scripted()
    env.action_space = space
    return env


# ---- spaces, shapes, types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAC(gym.make("CartPole-v1")), r"SAC got the action space Discrete\(2\).*expected a Box.*use DQN"),
        (lambda: TD3(gym.make("CartPole-v1")), r"TD3 got the action space Discrete\(2\).*expected a Box"),
        (lambda: DQN(gym.make("Pendulum-v1")), r"DQN got the action space Box.*expected a Discrete.*use SAC or TD3"),
        (lambda: SAC(with_action(spaces.Box(-np.inf, np.inf, (1,)))), r"finite low < high.*TransformAction"),
        (lambda: SAC(with_observation(spaces.Box(0, 1, (2, 2)))), r"observation space Box.*FlattenObservation"),
        (lambda: SAC(with_observation(spaces.Discrete(3))), r"observation space Discrete\(3\).*expected a Box"),
    ],
    ids=["sac-discrete", "td3-discrete", "dqn-box", "unbounded", "matrix", "discrete-observation"],
)
def test_wrong_space(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_wrong_shape() -> None:
    with pytest.raises(SpaceError, match=r"shape \(4,\): expected \(3,\) or \(n, 3\); pass what env.reset"):
        make_agent("sac").predict(np.zeros(4, np.float32))


@pytest.mark.parametrize("observation", [np.array(["a", "b", "c"]), "abc", [[1.0], [1.0, 2.0]]])
def test_wrong_dtype(observation: Any) -> None:
    with pytest.raises(SpaceError, match=r"an observation .*: expected numbers"):
        make_agent("sac").predict(observation)


# ---- numbers that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_observation_that_is_not_finite_is_not_stored(value: float) -> None:
    agent = small_sac(Scripted(observation=(0.0, value)))
    with pytest.raises(NonFiniteError, match=r"observation at environment step 4 .*expected finite.*was not stored"):
        agent.learn(10)
    assert (agent.num_timesteps, len(agent.replay)) == (3, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_reward_that_is_not_finite_is_not_stored(value: float) -> None:
    agent = small_sac(Scripted(reward=value))
    with pytest.raises(NonFiniteError, match=r"reward at environment step 4 is .*(nan|inf).*expected finite"):
        agent.learn(10)
    assert (agent.num_timesteps, len(agent.replay)) == (3, 3)


def test_observation_that_is_not_finite_gets_no_action() -> None:
    with pytest.raises(NonFiniteError, match=r"is not finite: expected finite numbers; mend its source"):
        make_agent("sac").predict(np.array([0.0, np.nan, 0.0], np.float32))


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")
def test_infinities_do_not_cancel() -> None:
    with pytest.raises(NonFiniteError):
        require_finite("the observation", np.array([np.inf, -np.inf]), 1)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1.5])
def test_cost_that_is_no_count_is_not_charged(value: float) -> None:
    meter = ComputeMeter()
    with pytest.raises(CostError, match=r"expected"):
        meter.add(value)
    assert meter.totals["act"] == 0


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_negative_or_nan_cost(value: float) -> None:
    with pytest.raises(CostError, match=r"expected"):
        validate_cost(value, "The cost")


@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_negative_or_nan_price(weight: float) -> None:
    with pytest.raises(BudgetError, match=r"weight=.*expected"):
        ComputePenaltyReward(make_env("Pendulum-v1"), weight=weight)


# ---- budgets --------------------------------------------------------------------------------------------------------


class Option:
    """A sub-policy that costs ``flops``."""

    def __init__(self, name: str, flops: int) -> None:
        self.name, self.flops = name, flops

    def __call__(self, observation: Any) -> np.ndarray:
        return np.zeros(1, np.float32)


def test_budget_below_the_cheapest_policy() -> None:
    options = SubPolicyAction(make_env("Pendulum-v1"), SubPolicies([Option("small", 100), Option("large", 900)]))
    with pytest.raises(InfeasibleBudgetError, match=r"limit of 50 FLOPs .*below the 500"):
        # The cheapest choice: 100 FLOPs a step, for the 5 steps that it holds.
        ComputeLimit(options, max_flops=50).reset(seed=0)


# ---- keys, extras, files, modules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message"),
    [("lerning_rate", "did you mean 'learning_rate'"), ("colour", "known keys: .*batch_size")],
)
def test_unknown_key(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"SACConfig has no key '{key}'; {message}"):
        make_agent("sac", **{key: 1})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("gamma", 1.5, r"gamma=1\.5: expected a discount in \[0, 1\]"),
        ("batch_size", 0, "batch_size=0: expected at least 1"),
        ("learning_rate", -1.0, r"learning_rate=-1\.0: expected a number above 0"),
        ("activation", "gelu", "activation='gelu': expected 'relu' or 'tanh'"),
    ],
)
def test_value_out_of_bounds(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_agent("sac", **{key: value})


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*budget-wrappers\[minari\]"):
        open_dataset("any/data-v0")


def test_truncated_checkpoint(tmp_path: Path) -> None:
    path = save_agent(make_agent("sac"), tmp_path / "agent")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"no whole safetensors file.*take another copy"):
        SAC.load(path, None)


def test_foreign_checkpoint(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "agent.pt")
    with pytest.raises(UntrustedFileError, match=r"a zip archive.*expected a safetensors checkpoint.*trust=True"):
        SAC.load(tmp_path / "agent.pt", None)


def test_uncountable_module() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.prims.sin(x)  # a compiler's operator: nothing is known about these

    with pytest.raises(UncountableError, match=r"prims\.sin"):
        count_flops(Odd(), torch.zeros(2, 2))
