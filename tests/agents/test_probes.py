"""Every agent finds the known values of the probe environments, |error| < 0.1."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agents import CQL, DQN, SAC, TD3, DiscreteCQL
from agents.loop.agent import OffPolicyAgent
from agents.loop.offline import FixedReplay
from agents.replay.dataset import Transitions
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import SubPolicyAction
from tests.agents import probes

GAMMA = 0.5
COMMON: dict[str, Any] = {"net_arch": (32, 32), "batch_size": 32, "gamma": GAMMA, "buffer_size": 2000, "seed": 0}
FOLLOW = {"tau": 0.1, "learning_rate": 5e-3}
# The temperature is fixed and small: values are then those of rewards alone, up to a few hundredths.
CONTINUOUS = {
    SAC: {**COMMON, **FOLLOW, "learning_starts": 100, "ent_coef": 0.01},
    # Its policy has no entropy to keep it from the bounds, where tanh is flat: slower, and more random steps first.
    TD3: {**COMMON, "tau": 0.1, "learning_rate": 2e-3, "learning_starts": 300, "exploration_noise": 0.5},
}
DISCRETE = {
    **COMMON,
    "learning_rate": 3e-3,
    "learning_starts": 50,
    "train_freq": 1,
    "target_update_interval": 10,
    "exploration_fraction": 1.0,
    "exploration_final_eps": 0.2,
}
OFFLINE: dict[type, dict[str, Any]] = {
    CQL: {**COMMON, **FOLLOW, "actor_learning_rate": 5e-3, "ent_coef": 0.01, "cql_alpha": 0.02, "action_samples": 1},
    DiscreteCQL: {**COMMON, "learning_rate": 3e-3, "target_update_interval": 10, "cql_alpha": 0.02},
}
ONLINE = [SAC, TD3, DQN]
ALL = [*ONLINE, *OFFLINE]


def trained(agent_class: type, probe: Callable[[bool], probes.Probe], steps: int = 350) -> OffPolicyAgent:
    """Return an agent after ``steps`` steps of learning ``probe``, by acting or from random actions stored before."""
    discrete = agent_class in (DQN, DiscreteCQL)
    env = probe(discrete)
    if agent_class not in OFFLINE:
        settings = DISCRETE if discrete else CONTINUOUS[agent_class]
        return agent_class(env, **settings).learn(settings["learning_starts"] + steps)
    agent = agent_class(env, **OFFLINE[agent_class])
    agent.replay = FixedReplay(random_data(agent, env, 400), discrete=discrete, gamma=GAMMA)
    return agent.learn(steps)


def random_data(agent: OffPolicyAgent, env: probes.Probe, steps: int) -> Transitions:
    """Return ``steps`` transitions of uniformly random actions."""
    rows, (observation, _) = [], env.reset(seed=0)
    for _ in range(steps):
        action = agent.random_action(1)
        following, reward, terminated, truncated, _ = env.step(agent.to_env_action(action)[0])
        rows.append((observation, action[0], np.float32(reward), following, terminated, truncated))
        observation = env.reset()[0] if terminated or truncated else following
    return Transitions(*(np.array(column) for column in zip(*rows, strict=True)), returns=np.zeros(1))


def value(agent: OffPolicyAgent, shown: float) -> float:
    """Return the smallest critic's value of the agent's own action."""
    observation = np.array([[shown]], np.float32)
    if agent.discrete:
        return float(agent.values(observation).max())
    action = torch.from_numpy(agent.act(observation, deterministic=True))
    with torch.no_grad():
        return float(agent.critic(torch.from_numpy(observation), action).amin())


def act(agent: OffPolicyAgent, shown: float) -> float:
    """Return the agent's deterministic action."""
    action, _ = agent.predict(np.array([shown], np.float32))
    return float(np.asarray(action).reshape(-1)[0])


@pytest.mark.parametrize("agent_class", ALL)
def test_value_of_a_constant(agent_class: type) -> None:
    agent = trained(agent_class, probes.constant, 250)
    assert value(agent, 0.0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("agent_class", ALL)
def test_value_of_the_observation(agent_class: type) -> None:
    agent = trained(agent_class, probes.of_the_observation, 350)
    assert [value(agent, shown) for shown in (-1.0, 1.0)] == pytest.approx([-1.0, 1.0], abs=0.1)


@pytest.mark.parametrize("agent_class", ALL)
def test_value_is_discounted_over_two_steps(agent_class: type) -> None:
    agent = trained(agent_class, probes.discounting)
    assert [value(agent, shown) for shown in (0.0, 1.0)] == pytest.approx([GAMMA, 1.0], abs=0.1)


@pytest.mark.parametrize("agent_class", ALL)
def test_action_that_pays_is_found(agent_class: type) -> None:
    agent = trained(agent_class, probes.of_the_action, 600)
    best = 1.0 if agent.discrete else 0.5
    # (0.1)² = 0.01 of a reward of 1 is lost at this distance: the value is nearly flat there.
    assert act(agent, 0.0) == pytest.approx(best, abs=0.15)
    assert value(agent, 0.0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("agent_class", ALL)
def test_action_that_pays_depends_on_the_observation(agent_class: type) -> None:
    agent = trained(agent_class, probes.of_both, 600)
    best = [0.0, 1.0] if agent.discrete else [-0.5, 0.5]
    assert [act(agent, shown) for shown in (-1.0, 1.0)] == pytest.approx(best, abs=0.2)
    assert [value(agent, shown) for shown in (-1.0, 1.0)] == pytest.approx([1.0, 1.0], abs=0.1)


@pytest.mark.parametrize("agent_class", ALL)
def test_time_limit_does_not_cut_the_bootstrap(agent_class: type) -> None:
    agent = trained(agent_class, probes.only_truncates)
    # 1 + γ + γ² + … = 1/(1 − 0.5); cut at the fifth step, the mean over an episode would be 1.6.
    assert value(agent, 0.0) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("switch", ["double", "dueling", "prioritized"])
def test_values_are_those_of_plain_dqn_with(switch: str) -> None:
    agent = DQN(probes.discounting(True), **{**DISCRETE, switch: True}).learn(600)
    assert [value(agent, shown) for shown in (0.0, 1.0)] == pytest.approx([GAMMA, 1.0], abs=0.1)


def test_three_step_returns_have_the_values_of_one_step_returns() -> None:
    agent = DQN(probes.only_truncates(True), **{**DISCRETE, "n_step": 3}).learn(600)
    assert value(agent, 0.0) == pytest.approx(2.0, abs=0.1)


def master(probe: Callable[[], probes.Probe], weight: float) -> DQN:
    """Return a DQN that chooses each step between action 0 for 10 FLOPs and action 1 for 40: c = 1 and 4."""
    meter = ComputeMeter("probe")
    cheap = FunctionPolicy(lambda observation: 0, flops=10, name="cheap")
    dear = FunctionPolicy(lambda observation: 1, flops=40, name="dear")
    env = SubPolicyAction(probe(), [cheap, dear], hold=1, weight=weight, meter=meter)
    return DQN(env, meter=meter, **DISCRETE).learn(1200)


def values(agent: DQN, shown: float) -> list[float]:
    """Return the values of the cheap and of the dear sub-policy."""
    return agent.values(np.array([[shown]], np.float32))[0].tolist()


def test_cheap_is_right() -> None:
    agent = master(probes.cheap_is_right, weight=0.1)
    # A step pays 1 − 0.1·1 or 1 − 0.1·4; for ever cheap is worth 0.9/(1 − γ) = 1.8, so γ·1.8 = 0.9 follows each.
    for shown in (-1.0, 1.0):
        assert values(agent, shown) == pytest.approx([0.9 + 0.9, 0.6 + 0.9], abs=0.1)
        assert act(agent, shown) == 0


def test_dear_is_worth_it() -> None:
    agent = master(probes.dear_is_worth_it, weight=0.1)
    # s = 1: cheap 0 − 0.1, dear 1 − 0.4; s = −1: cheap 1 − 0.1, dear 1 − 0.4. Best split: dear where s = 1, half of
    # the steps, worth (0.6 + 0.9)/2 = 0.75 a step and 0.75/(1 − γ) = 1.5 for ever, of which γ·1.5 = 0.75 follows.
    assert values(agent, 1.0) == pytest.approx([-0.1 + 0.75, 0.6 + 0.75], abs=0.1)
    assert values(agent, -1.0) == pytest.approx([0.9 + 0.75, 0.6 + 0.75], abs=0.1)
    assert [act(agent, shown) for shown in (-1.0, 1.0)] == [0, 1]
