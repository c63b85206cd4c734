"""Meters of a team: whose is which, agents that nobody knew of, and modules that agents share."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.multi_agent import charge_agents, parallel
from tests.wrappers.multi_agent.environments import AGENTS, Team, of_kind, play, turns, use_meters

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])


def legal(agent: str, number: int) -> np.ndarray:
    return np.zeros(1, np.float32)


class Newcomers(ParallelEnv):
    """A new agent at every step, and nobody knows how many there will be."""

    render_mode = None

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(1)

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(1)

    def reset(self, seed: Any = None, options: Any = None) -> Any:
        self.agents, self._steps = ["agent_0"], 0
        return {"agent_0": 0}, {"agent_0": {}}

    def step(self, actions: Any) -> Any:
        self._steps += 1
        self.agents = [*self.agents, f"agent_{self._steps}"]
        nobody, infos = dict.fromkeys(self.agents, False), {agent: {} for agent in self.agents}
        return dict.fromkeys(self.agents, 0), dict.fromkeys(self.agents, 1.0), nobody, nobody, infos


@both
def test_a_mapping_that_lacks_an_agent_or_names_an_unknown_one_is_refused(make: Any) -> None:
    meters = {agent: f"tests.{agent}" for agent in AGENTS}
    record = of_kind(make()).RecordComputeStatistics
    with pytest.raises(ConfigError, match=r"meter has nothing for \['agent_2'\]"):
        record(make(), meter={agent: meters[agent] for agent in AGENTS[:2]})
    with pytest.raises(ConfigError, match=r"meter names the agent 'agent_9'; known agents are \['agent_0'"):
        record(make(), meter={**meters, "agent_9": "tests.agent_9"})
    with pytest.raises(ConfigError, match=r"'agent_0' and 'agent_1' the same meter 'tests\.agent_0'"):
        record(make(), meter={**meters, "agent_1": "tests.agent_0"})
    with pytest.raises(ConfigError, match="one meter could not tell"):
        record(make(), meter=ComputeMeter("tests"))


@both
def test_a_mapping_may_mix_names_and_objects(make: Any) -> None:
    own = ComputeMeter("own")
    meters = {"agent_0": own, "agent_1": "tests.one", "agent_2": "tests.two"}
    env = of_kind(make()).RecordComputeStatistics(make(), meter=meters)
    assert env.account.of("agent_0").meter is own
    assert env.account.of("agent_1").meter is get_meter("tests.one")


def test_agents_that_turn_up_later_have_a_meter_by_their_name() -> None:
    env = parallel.RecordComputeStatistics(
        Newcomers(), meter="tests.newcomers"
    )  # nobody else's, so nothing pends on it
    env.reset()
    infos = env.step({"agent_0": 0})[-1]
    assert {agent: float(info["cost"]) for agent, info in infos.items()} == {"agent_0": 0.0, "agent_1": 0.0}
    get_meter("tests.newcomers.agent_1").add(5)
    assert env.step({"agent_0": 0, "agent_1": 0})[-1]["agent_1"]["cost"] == 5.0


def test_what_needs_to_know_all_agents_says_so() -> None:
    with pytest.raises(ConfigError, match="no possible_agents"):
        parallel.ComputeLimit(Newcomers(), team_max_flops=10, on_exhausted="truncate")


def test_a_module_that_agents_share_charges_those_it_acts_for() -> None:
    actor, shared = torch.nn.Linear(2, 1), ComputeMeter("shared")  # 2 · 2 · 1 = 4 FLOPs a row
    env = parallel.RecordComputeStatistics(Team())
    use_meters(env)
    observations, _ = env.reset()
    with shared.watch(actor), torch.no_grad():
        for agent in env.agents:
            actor(torch.zeros(1, 2))
            charge_agents(shared, [agent])
        assert [float(info["cost"]) for info in env.step(observations)[-1].values()] == [4.0] * 3
        actor(torch.zeros(3, 2))  # one batch for all
        charge_agents(shared, env.agents)
        assert [float(info["cost"]) for info in env.step(observations)[-1].values()] == [4.0] * 3


def test_nothing_of_a_shared_charge_is_lost() -> None:
    shared = ComputeMeter("shared")
    shared.add(11)
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    charge_agents(shared, AGENTS, meters)
    assert [meters[agent].pending_flops for agent in AGENTS] == [4, 4, 3]
    assert shared.pending_flops == 0


def test_a_shared_charge_for_others_than_acted_is_refused() -> None:
    shared = ComputeMeter("shared")
    shared.add(8, rows=2)
    with pytest.raises(MeterError, match="batch of 2 observations and 3 agents"):
        charge_agents(shared, AGENTS)
    with pytest.raises(ConfigError, match="agents is empty"):
        charge_agents(shared, [])
    with pytest.raises(ConfigError, match=r"meter has nothing for \['agent_0'\]"):
        charge_agents(shared, ["agent_0"], {"agent_1": "x"})


@both
def test_an_agent_charged_for_a_batch_is_an_error(make: Any) -> None:
    env = of_kind(make()).RecordComputeStatistics(make())
    use_meters(env)
    env.reset()
    get_meter("policy.agent_0").add(8, rows=2)
    with pytest.raises(MeterError, match="batch of 2 observations"):
        env.step(dict.fromkeys(AGENTS, legal("", 0)) if isinstance(env, ParallelEnv) else legal("", 0))


@both
def test_trained_and_evaluated_teams_may_share_meters(make: Any) -> None:
    first, second = (of_kind(make()).RecordComputeStatistics(make()) for _ in range(2))
    play(first, legal, lambda agent, number: 3)
    play(second, legal, lambda agent, number: 5)
    assert (first.team_summary()["flops"], second.team_summary()["flops"]) == (36.0, 60.0)


@both
@pytest.mark.parametrize("when", ["before", "after the reset"])
def test_one_network_watched_by_the_meters_of_several_agents_is_refused_with_the_way_to_share_it(
    make: Any, when: str
) -> None:
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    env = of_kind(make()).RecordComputeStatistics(make(), meter=meters)
    actor = torch.nn.Linear(4, 2)
    env.reset(seed=0)
    for agent in AGENTS[:2]:
        meters[agent].watch(actor)
    if when == "before":
        env.reset(seed=0)
    with pytest.raises(MeterError, match=r"'agent_0' and 'agent_1' watch the same Linear.*charge_agents"):
        env.step({agent: legal(agent, 0) for agent in AGENTS} if of_kind(env) is parallel else legal(AGENTS[0], 0))


def test_agents_of_a_team_whose_networks_share_a_part_are_charged_for_their_own_forwards() -> None:
    trunk = torch.nn.Linear(4, 4)  # 32 FLOPs
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    env = parallel.RecordComputeStatistics(Team(), meter=meters)
    nets = {agent: torch.nn.Sequential(trunk, torch.nn.Linear(4, 1)) for agent in AGENTS}  # and 8
    for agent, net in nets.items():
        meters[agent].watch(net)
    env.reset(seed=0)
    with torch.no_grad():
        for net in nets.values():
            net(torch.zeros(1, 4))
    infos = env.step({agent: legal(agent, 0) for agent in AGENTS})[-1]
    assert {agent: info["cost"] for agent, info in infos.items()} == dict.fromkeys(AGENTS, 40.0)
