"""BudgetAwareObservation for teams: whose share, where it stands, and spaces that hold it."""

from typing import Any

import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces

from budget_wrappers.errors import ConfigError, SpaceError, WrapperOrderError
from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import AGENTS, Team, of_kind, turns

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])


def legal() -> np.ndarray:
    return np.zeros(1, np.float32)


def watched(make: Any, whose: Any = None, shape: Any = (2,), **limits: Any) -> Any:
    """Return a team under limits that sees what is left of them."""
    kind = of_kind(make())
    return kind.BudgetAwareObservation(kind.ComputeLimit(make(shape=shape), on_exhausted="truncate", **limits), whose)


def seen(env: Any, agent: str) -> Any:
    """Charge 25 to agent_0, let all act, and return what ``agent`` observes then."""
    env.reset()
    get_meter("policy.agent_0").add(25)
    if isinstance(env, pettingzoo.ParallelEnv):
        return env.step({agent: legal() for agent in AGENTS})[0][agent]
    for one in AGENTS:
        env.step(None if env.truncations[one] else legal())
    return env.observe(agent)


@both
@pytest.mark.parametrize(
    ("whose", "expected"),
    [("agent", {"agent_0": [0.5], "agent_1": [1.0]}), ("team", {"agent_0": [0.75], "agent_1": [0.75]}),
     ("both", {"agent_0": [0.5, 0.75], "agent_1": [1.0, 0.75]}), (None, {"agent_0": [0.5, 0.75]})],
)  # fmt: skip
def test_a_vector_gets_the_shares_last(make: Any, whose: Any, expected: dict[str, list[float]]) -> None:
    # 25 of the agent's 50 and of the team's 100
    env = watched(make, whose, max_flops=50, team_max_flops=100)
    for agent, shares in expected.items():
        observation = seen(env, agent)
        assert observation.tolist() == [0.25, 0.25, *shares]
        assert observation.dtype == np.float32
        assert env.observation_space(agent).contains(observation)


@both
def test_only_limits_that_are_set_are_shown_by_default(make: Any) -> None:
    assert seen(watched(make, team_max_flops=100), "agent_1").tolist() == [0.25, 0.25, 0.75]
    assert seen(watched(make, max_flops=100), "agent_1").tolist() == [0.25, 0.25, 1.0]


@both
def test_an_agent_without_a_limit_of_its_own_has_all_of_it(make: Any) -> None:
    env = watched(make, max_flops={"agent_0": 50})
    assert (seen(env, "agent_0")[-1], seen(env, "agent_1")[-1]) == (0.5, 1.0)


@both
def test_a_share_never_leaves_the_unit_interval(make: Any) -> None:
    env = watched(make, team_max_flops=20)
    assert seen(env, "agent_0")[-1] == 0.0


@both
def test_what_is_no_vector_becomes_a_dict(make: Any) -> None:
    env = watched(make, shape=(2, 2), team_max_flops=100)
    observation = seen(env, "agent_2")
    assert env.observation_space("agent_2").contains(observation)
    assert observation["budget"].tolist() == [0.75]
    assert observation["observation"].shape == (2, 2)


def test_a_mask_of_actions_stays_where_it_is() -> None:
    env = pettingzoo.make("aec", "classic/tictactoe-v3")
    env = aec.BudgetAwareObservation(aec.ComputeLimit(env, team_max_flops=100, on_exhausted="truncate"))
    env.reset()
    assert env.last()[0]["action_mask"].tolist() == [1] * 9
    assert set(env.observation_space("player_1").spaces) == {"observation", "action_mask", "budget"}
    assert env.last(observe=False)[0] is None


def test_a_key_that_is_taken_is_refused() -> None:
    env = pettingzoo.make("aec", "classic/tictactoe-v3")
    env = aec.ComputeLimit(env, team_max_flops=100, on_exhausted="truncate")
    with pytest.raises(SpaceError, match="dict_key='action_mask' is taken"):
        aec.BudgetAwareObservation(env, dict_key="action_mask").observation_space("player_1")


def test_doubles_stay_doubles_and_whole_numbers_become_floats() -> None:
    for given, expected in ((np.float64, np.float64), (np.uint8, np.float32)):

        class Typed(Team):
            def observation_space(self, agent: str, given: Any = given) -> spaces.Space:
                return spaces.Box(0, 1, (2,), given)

            def _observe(self, given: Any = given) -> dict[str, Any]:
                return {agent: np.zeros(2, given) for agent in self.agents}

        env = watched(Typed, team_max_flops=100)
        assert seen(env, "agent_0").dtype == env.observation_space("agent_0").dtype == expected


@both
def test_there_has_to_be_a_limit_to_see(make: Any) -> None:
    kind = of_kind(make())
    with pytest.raises(WrapperOrderError, match="found no ComputeLimit inside"):
        kind.BudgetAwareObservation(make())
    with pytest.raises(ConfigError, match="whose='team': the limit inside has max_flops set and team_max_flops not"):
        watched(make, "team", max_flops=50)
    with pytest.raises(ConfigError, match="whose='mine'"):
        watched(make, "mine", max_flops=50)


def test_entries_of_nobody_pass_through() -> None:
    class Common(pettingzoo.utils.wrappers.BaseParallelWrapper):
        def reset(self, seed: Any = None, options: Any = None) -> Any:
            observations, infos = self.env.reset(seed, options)
            return {**observations, "common": 1}, infos

    env = parallel.ComputeLimit(Common(Team()), team_max_flops=100, on_exhausted="truncate")
    assert parallel.BudgetAwareObservation(env).reset()[0]["common"] == 1
