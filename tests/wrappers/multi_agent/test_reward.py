"""ComputePenaltyReward for teams: who pays for what, and what AEC's last() says."""

import math
from typing import Any

import numpy as np
import pettingzoo
import pytest

from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import AGENTS, Team, of_kind, play, turns, use_meters

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])
FLOPS = {"agent_0": 30, "agent_1": 60, "agent_2": 0}


def legal(agent: str, number: int) -> np.ndarray:
    return np.zeros(1, np.float32)


def one_round(env: Any) -> dict[str, float]:
    """Charge, act once each, and return the rewards that the agents are told of."""
    env.reset()
    if isinstance(env, pettingzoo.ParallelEnv):
        for agent in AGENTS:
            get_meter(f"policy.{agent}").add(FLOPS[agent])
        return env.step({agent: legal(agent, 0) for agent in AGENTS})[1]
    for agent in AGENTS:
        get_meter(f"policy.{agent}").add(FLOPS[agent])
        env.step(legal(agent, 0))
    told = {}
    for agent in AGENTS:
        told[agent] = env.last()[1]
        env.step(legal(agent, 0))
    return told


@both
def test_each_agent_pays_for_its_own_action(make: Any) -> None:
    rewards = one_round(of_kind(make()).ComputePenaltyReward(make(), 0.01))
    assert rewards == pytest.approx({"agent_0": 1 - 0.3, "agent_1": 1 - 0.6, "agent_2": 1.0})
    assert {type(reward) for reward in rewards.values()} == {float}


@both
def test_shared_costs_are_the_teams_mean(make: Any) -> None:
    env = of_kind(make()).ComputePenaltyReward(make(max_cycles=1), 0.01, shared=True)
    play(env, legal, lambda agent, number: FLOPS[agent])
    # (30 + 60 + 0) / 3 = 30
    assert [env.report(agent)["return_penalised"] for agent in AGENTS] == pytest.approx([0.7] * 3)


def test_a_floor_stops_the_penalty() -> None:
    rewards = one_round(parallel.ComputePenaltyReward(Team(), 0.01, floor=0.5))
    assert rewards == pytest.approx({"agent_0": 0.7, "agent_1": 0.5, "agent_2": 1.0})


def test_what_last_tells_is_the_sum_since_the_agents_own_turn() -> None:
    # Whoever acts pays at once; the environment's rewards come with the last action of a round. agent_0 acts, and is
    # told at its next turn: −0.3 (its own action) + 1
    env = aec.ComputePenaltyReward(turns(), 0.01)
    env.reset()
    get_meter("policy.agent_0").add(30)
    env.step(legal("agent_0", 0))
    assert env.rewards["agent_0"] == pytest.approx(-0.3)
    for agent in AGENTS[1:]:
        env.step(legal(agent, 0))
    assert env.agent_selection == "agent_0"
    assert env.rewards["agent_0"] == 1.0
    assert env.last()[1] == pytest.approx(0.7)
    for agent in AGENTS:
        env.step(legal(agent, 1))
    assert env.last()[1] == 2.0  # of the second round alone


def test_a_wrapper_further_out_is_told_the_same() -> None:
    """PettingZoo's own wrappers reach ``_cumulative_rewards``, the only private name they hand on."""
    env = pettingzoo.utils.wrappers.BaseWrapper(aec.ComputePenaltyReward(turns(), 0.01))
    assert one_round(env) == pytest.approx({"agent_0": 0.7, "agent_1": 0.4, "agent_2": 1.0})


@both
def test_a_dead_agent_pays_nothing(make: Any) -> None:
    env = of_kind(make()).ComputePenaltyReward(make(deaths={"agent_1": 1}), 0.01, shared=True)
    env = of_kind(env).RecordComputeStatistics(env)
    play(env, legal, lambda agent, number: 30)
    # three agents pay 0.3 each in the first step, two of them 0.3 each in the other three; rewards 1 … 4
    assert env.compute_summary("agent_1")["return_penalised"] == pytest.approx(1 - 0.3)
    assert env.compute_summary("agent_0")["return_penalised"] == pytest.approx(10 - 4 * 0.3)


@both
@pytest.mark.parametrize("record_inside", [True, False])
def test_both_returns_are_kept_in_either_order(make: Any, record_inside: bool) -> None:
    kind = of_kind(make())
    layers = [kind.RecordComputeStatistics, lambda env: kind.ComputePenaltyReward(env, 0.01)]
    env = make()
    for layer in layers if record_inside else layers[::-1]:
        env = layer(env)
    infos = play(env, legal, lambda agent, number: FLOPS[agent])
    account = (dict(infos) if isinstance(infos[0], tuple) else infos[-1])["agent_1"]["compute"]
    # rewards 1 + 2 + 3 + 4, four actions of 60 FLOPs
    assert (float(account["return_raw"]), float(account["return_penalised"])) == pytest.approx((10.0, 10 - 4 * 0.6))


@both
def test_a_cost_is_charged_once(make: Any) -> None:
    kind = of_kind(make())
    with pytest.raises(WrapperOrderError, match=r"already, with weight=0\.01"):
        kind.ComputePenaltyReward(kind.ComputePenaltyReward(make(), 0.01), 0.02)
    kind.ComputePenaltyReward(kind.ComputePenaltyReward(make(), 0.0), 0.02)


@both
@pytest.mark.parametrize("weight", [-1, math.nan, math.inf])
def test_an_illegal_weight_is_refused(make: Any, weight: float) -> None:
    with pytest.raises(ConfigError, match="weight="):
        of_kind(make()).ComputePenaltyReward(make(), weight)


@both
def test_the_weight_of_a_team_does_not_adapt(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"weight='auto'; expected a finite number >= 0 here"):
        of_kind(make()).ComputePenaltyReward(make(), "auto")


def test_an_illegal_floor_is_refused() -> None:
    with pytest.raises(ConfigError, match="floor=nan"):
        parallel.ComputePenaltyReward(Team(), 1, floor=math.nan)


@both
def test_the_weight_can_be_changed(make: Any) -> None:
    env = of_kind(make()).ComputePenaltyReward(make(), 0.01)
    env.set_weight(0.0)
    use_meters(env)
    assert one_round(env) == dict.fromkeys(AGENTS, 1.0)


def test_in_parallel_the_environments_rewards_are_not_changed_in_place() -> None:
    rewards = dict.fromkeys(AGENTS, 1.0)

    class Same(pettingzoo.utils.wrappers.BaseParallelWrapper):
        def step(self, actions: Any) -> Any:
            observations, _, *rest = self.env.step(actions)
            return observations, rewards, *rest

    one_round(parallel.ComputePenaltyReward(Same(Team()), 0.01))
    assert rewards == dict.fromkeys(AGENTS, 1.0)
