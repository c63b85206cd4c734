"""ComputeLimit.allocate: the program's choices, rounded down, are what runs."""

import numpy as np
import pytest

from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers.multi_agent import parallel
from tests.wrappers.multi_agent.environments import (
    AGENTS,
    PATH,
    Team,
    limited,
)


def test_the_programs_floor_goes_to_those_who_gain_most() -> None:
    # 210 are 90 above the path: three upgrades of 30, or an even share of 90 // 4 = 22 a step: none at all at first
    env = limited(Team, team_max_flops=PATH + 90)
    env.reset()
    values = {"agent_0": [0.0, 1.0], "agent_1": [0.0, 3.0], "agent_2": [5.0, 7.0]}
    assert env.allocate(values, spread=False) == dict.fromkeys(AGENTS, 1)
    assert env.allocate(values) == dict.fromkeys(AGENTS, 0)
    env.step(dict.fromkeys(AGENTS, 0))
    assert env.allocate(values) == {"agent_0": 0, "agent_1": 1, "agent_2": 0}  # 90 // 3 = 30: one upgrade
    env.set_budget(team_max_flops=PATH + 60)
    env.reset()
    assert env.allocate(values, spread=False) == {"agent_0": 0, "agent_1": 1, "agent_2": 1}


def test_an_allocation_is_what_runs() -> None:
    env = limited(Team, selector=5, team_max_flops=3 * 4 * 15 + 70)
    env.reset()
    rng = np.random.default_rng(0)
    while env.agents:
        for agent in env.agents:
            get_meter(f"policy.{agent}").add(5)
        chosen = env.allocate({agent: rng.normal(size=2) for agent in env.agents}, spread=bool(rng.integers(2)))
        infos = env.step(chosen)[-1]
        assert {agent: int(info["option"]) for agent, info in infos.items()} == chosen
    assert env.overshoot() == 0


def test_an_allocation_respects_each_agents_own_limit() -> None:
    env = limited(Team, max_flops={"agent_1": 40}, team_max_flops=480)
    env.reset()
    values = {agent: [0.0, 1.0] for agent in AGENTS}
    assert env.allocate(values, spread=False) == {"agent_0": 1, "agent_1": 0, "agent_2": 1}


def test_an_allocation_that_means_nothing_is_refused() -> None:
    env = parallel.ComputeLimit(Team(), team_max_flops=100, on_exhausted="truncate")
    with pytest.raises(ConfigError, match="needs a SubPolicyAction inside"):
        env.allocate({})
    env = limited(Team, team_max_flops=200)
    env.reset()
    assert env.allocate({}) == {}
    with pytest.raises(SpaceError, match=r"values of 'agent_0' have shape \(3,\); expected \(2,\)"):
        env.allocate({"agent_0": [1.0, 2.0, 3.0]})
