"""RecordComputeStatistics for teams: whose cost, when, and the accounts of agents and of the team."""

from typing import Any

import numpy as np
import pytest
from pettingzoo.utils.wrappers import BaseParallelWrapper

from budget_wrappers.errors import ConfigError, InfoKeyError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import AGENTS, STEPS, Team, of_kind, play, sub_policies, turns, use_meters

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])
FLOPS = {"agent_0": 5, "agent_1": 7, "agent_2": 0}


def legal(agent: str, number: int) -> np.ndarray:
    return np.zeros(1, np.float32)


def by_agent(agent: str, number: int) -> int:
    return FLOPS[agent] * (number + 1)


def last_infos(infos: list[Any]) -> dict[str, Any]:
    """Return each agent's last info, of either API."""
    if isinstance(infos[0], tuple):
        return dict(infos)
    return {agent: info for step in infos for agent, info in step.items()}


def test_each_agent_reports_its_own_cost_at_every_step() -> None:
    infos = play(parallel.RecordComputeStatistics(Team()), legal, by_agent)
    assert [info["agent_0"]["cost"] for info in infos] == [5.0, 10.0, 15.0, 20.0]
    assert [info["agent_1"]["cost"] for info in infos] == [7.0, 14.0, 21.0, 28.0]


def test_in_turns_an_agent_is_told_at_its_turn_what_its_latest_action_cost() -> None:
    infos = play(aec.RecordComputeStatistics(turns()), legal, by_agent)
    told = [float(info["cost"]) for agent, info in infos if agent == "agent_1"]
    assert told == [0.0, 7.0, 14.0, 21.0, 28.0]  # the last one at its empty step


def test_costs_are_numpy_floats_from_the_reset_on() -> None:
    _, infos = parallel.RecordComputeStatistics(Team()).reset()
    env = aec.RecordComputeStatistics(turns())
    env.reset()
    for info in (*infos.values(), *env.infos.values()):
        assert (type(info["cost"]), info["cost"]) == (np.float64, 0.0)


def test_what_another_agent_has_pending_stays_its_own() -> None:
    env = aec.RecordComputeStatistics(turns())
    env.reset()
    get_meter("policy.agent_1").add(100)  # computed early
    get_meter("policy.agent_0").add(3)
    env.step(legal("agent_0", 0))
    assert (env.infos["agent_0"]["cost"], env.infos["agent_1"]["cost"]) == (3.0, 0.0)
    env.step(legal("agent_1", 0))
    assert env.infos["agent_1"]["cost"] == 100.0


@both
def test_a_reset_drops_what_is_pending(make: Any) -> None:
    env = of_kind(make()).RecordComputeStatistics(make())
    get_meter("policy.agent_0").add(1000)
    play(env, legal)
    assert env.team_summary()["flops"] == 0.0


@both
def test_only_live_agents_are_charged(make: Any) -> None:
    # agent_1 terminates at step 2; whoever charges it later pays for nobody
    env = of_kind(make()).RecordComputeStatistics(make(deaths={"agent_1": 2}))
    use_meters(env)
    env.reset()
    if isinstance(env, aec.RecordComputeStatistics):
        for agent in env.agent_iter():
            get_meter(f"policy.{agent}").add(1)
            env.step(None if env.terminations[agent] or env.truncations[agent] else legal(agent, 0))
    else:
        while env.agents:
            for agent in AGENTS:
                get_meter(f"policy.{agent}").add(1)
            env.step({agent: legal(agent, 0) for agent in env.agents})
    flops = {agent: account.total for agent, account in env.account.accounts.items()}
    assert flops == {"agent_0": STEPS, "agent_1": 2, "agent_2": STEPS}


@both
def test_an_agents_account_comes_when_its_own_episode_ends(make: Any) -> None:
    env = of_kind(make()).RecordComputeStatistics(make(deaths={"agent_1": 2}))
    infos = play(env, legal, by_agent)
    account = last_infos(infos)["agent_1"]["compute"]
    # 7 + 14 FLOPs in two steps with rewards 1 and 2
    assert {key: float(account[key]) for key in ("flops", "flops_per_step", "steps", "return_raw")} == {
        "flops": 21.0, "flops_per_step": 10.5, "steps": 2.0, "return_raw": 3.0,
    }  # fmt: skip
    assert last_infos(infos)["agent_0"]["compute"]["flops"] == 5 + 10 + 15 + 20
    if not isinstance(infos[0], tuple):
        assert [("compute" in info.get("agent_0", {})) for info in infos] == [False] * (STEPS - 1) + [True]


@both
def test_the_teams_account_sums_up_its_agents(make: Any) -> None:
    env = of_kind(make()).RecordComputeStatistics(make())
    play(env, legal, by_agent)
    account = env.team_summary()
    # 10 of (5 + 7); rewards 1 + 2 + 3 + 4 of three agents; 12 actions
    assert (account["flops"], account["steps"], account["return_raw"]) == (120.0, 12.0, 30.0)
    assert account["share_flops"] == pytest.approx({"agent_0": 5 / 12, "agent_1": 7 / 12, "agent_2": 0.0})


@both
def test_shares_are_by_sub_policy_and_selector(make: Any) -> None:
    env = of_kind(make()).SubPolicyAction(make(), sub_policies(make()), selector_flops=10)
    env = of_kind(env).RecordComputeStatistics(env)
    account = last_infos(play(env, lambda agent, number: number % 2, lambda agent, number: 10))["agent_2"]["compute"]
    # cheap, dear, cheap, dear and four selector calls: 20, 80 and 40 of 140
    assert account["share_flops"] == pytest.approx({"cheap": 1 / 7, "dear": 4 / 7, "selector": 2 / 7})
    assert account["share_steps"] == pytest.approx({"cheap": 0.5, "dear": 0.5, "hold": 0.0})


@both
def test_an_agent_whose_meter_nobody_uses_is_not_reported_as_free(make: Any) -> None:
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    meters["agent_0"].add(0)
    env = of_kind(make()).RecordComputeStatistics(make(), meter=meters)
    with pytest.raises(MeterError, match="'agent_1' never watched"):
        play(env, legal)


@both
def test_no_key_of_the_environment_is_overwritten(make: Any) -> None:
    inner = of_kind(make()).RecordComputeStatistics(make(), meter="tests.other")
    with pytest.raises(InfoKeyError, match="One RecordComputeStatistics"):
        of_kind(make()).RecordComputeStatistics(inner)
    with pytest.raises(ConfigError, match="key='compute'"):
        of_kind(make()).RecordComputeStatistics(make(), key="compute")

    class Costly(BaseParallelWrapper):
        def step(self, actions: Any) -> Any:
            *rest, infos = self.env.step(actions)
            return *rest, {agent: {**info, "cost": 1.0} for agent, info in infos.items()}

    with pytest.raises(InfoKeyError, match="key='compute_cost'"):
        play(parallel.RecordComputeStatistics(Costly(Team())), legal)
    play(parallel.RecordComputeStatistics(Costly(Team()), key="compute_cost"), legal)


def test_entries_that_belong_to_no_agent_pass_through() -> None:
    class Common(BaseParallelWrapper):
        def reset(self, seed: Any = None, options: Any = None) -> Any:
            observations, infos = self.env.reset(seed, options)
            return observations, {**infos, "common": {"x": 1}}

    assert parallel.RecordComputeStatistics(Common(Team())).reset()[1]["common"] == {"x": 1}
