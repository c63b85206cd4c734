"""Agents in wrapped vector environments: they charge the meter that the wrappers read, and infos reach their logs."""

from typing import Any

import gymnasium as gym
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from agents import DQN, BexaDQN
from agents.loop.callbacks import Callback
from agents.loop.collect import Step
from agents.loop.interface import accounts_of
from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers.vector import (
    BudgetAwareObservation,
    ComputePenaltyReward,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.agents.small import EPISODE, make_agent, make_env, make_vector

MODES = ("NEXT_STEP", "SAME_STEP", "DISABLED")


class Episodes(Callback):
    """Keeps what the loop says of each episode."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.found.append(episode)


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_charges_what_the_wrappers_read(mode: str) -> None:
    meter = ComputeMeter("tests.vector_agent")
    envs = ComputePenaltyReward(RecordComputeStatistics(make_vector("Pendulum-v1", mode), meter), 1e-4, meter=meter)
    agent = make_agent("sac", BudgetAwareObservation(envs, "budget", draw=(0.2, 0.9)), learning_starts=0)
    assert agent.meter is meter
    episodes = Episodes()
    agent.learn(4 * 3 * EPISODE, callback=episodes)
    accounts = [episode["compute"] for episode in episodes.found]
    # 3 observations, a budget; actor 4·8·8·(mean and log-deviation)
    each = 2 * (4 * 8 + 8 * 8 + 8 * 2)
    assert accounts
    assert {account["steps"] for account in accounts} == {float(EPISODE)}
    assert {account["flops"] for account in accounts} == {float(each * EPISODE)}
    assert all(account["return_penalised"] < account["return_raw"] for account in accounts)


@pytest.mark.parametrize("mode", ("NEXT_STEP", "DISABLED"))  # in SAME_STEP it writes beside the final infos
def test_gymnasium_s_recorder_around_a_vector_environment_tells_each_row_its_own_episode(mode: str) -> None:
    agent = make_agent("sac", RecordEpisodeStatistics(make_vector("Pendulum-v1", mode)), learning_starts=0)
    recorded, store = [], agent.store

    def storing(step: Step) -> None:
        recorded.extend(float(info["episode"]["r"]) for info in step.infos if "episode" in info)
        store(step)

    agent.store = storing
    episodes = Episodes()
    agent.learn(4 * 3 * EPISODE, callback=episodes)
    assert recorded == pytest.approx([episode["return"] for episode in episodes.found], rel=1e-4)
    assert recorded


@pytest.mark.parametrize("mode", MODES)
def test_a_discrete_agent_is_the_master_of_a_batch(mode: str) -> None:
    meter = ComputeMeter("tests.vector_master")
    policies = [FunctionPolicy(lambda obs, k=k: k, flops=10**k, name=f"push {k}") for k in (0, 1)]
    envs = RecordComputeStatistics(SubPolicyAction(make_vector("CartPole-v1", mode), policies, meter=meter), meter)
    agent = DQN(envs, net_arch=(8, 8), batch_size=16, buffer_size=500, learning_starts=20, seed=3)
    assert agent.meter is meter
    episodes = Episodes()
    agent.learn(200, callback=episodes)
    assert len(episodes.found) > 3
    for account in (episode["compute"] for episode in episodes.found):
        pushes = [account["share_steps"][f"push {k}"] * account["steps"] for k in (0, 1)]
        selector = account["share_flops"]["selector"] * account["flops"]
        assert sum(pushes) == pytest.approx(account["steps"])
        assert pushes[0] + 10 * pushes[1] + selector == pytest.approx(account["flops"])


def test_another_meter_than_the_wrappers_is_refused() -> None:
    envs = RecordComputeStatistics(make_vector("Pendulum-v1", "SAME_STEP"), ComputeMeter("theirs"))
    agent = make_agent("sac")
    with pytest.raises(MeterError, match="read meter 'theirs' and the agent charges another one"):
        agent.set_env(envs)


def test_an_environment_without_wrappers_has_no_accounts() -> None:
    assert accounts_of(make_vector("Pendulum-v1", "SAME_STEP")) == accounts_of(make_env("Pendulum-v1")) == ()
    assert accounts_of(None) == ()


@pytest.mark.parametrize("agent_class", [DQN, BexaDQN])
def test_exploring_rows_of_dqn_are_charged_with_the_others(agent_class: Any) -> None:
    meter = ComputeMeter("tests.dqn")
    envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    envs = RecordComputeStatistics(envs, meter)
    agent = agent_class(envs, net_arch=(8, 8), batch_size=16, buffer_size=500, learning_starts=20, seed=3)
    agent.learn(200)
    assert meter.totals["act"] > 0
    if agent_class is BexaDQN:
        assert (agent.replay.acted_by[: agent.replay.size] >= 0).any()
