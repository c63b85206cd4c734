"""ComputeLimit for teams when something inside raises, resets or acts out of turn; parallel and AEC alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper, BaseWrapper

from budget_wrappers.errors import CostError, NonFiniteError, WrapperOrderError
from budget_wrappers.metering import get_meter
from budget_wrappers.policies import FunctionPolicy
from tests.wrappers.multi_agent.environments import (
    AGENTS,
    CHEAP,
    DEAR,
    PATH,
    STEPS,
    Team,
    of_kind,
    spent,
    turns,
    use_meters,
)

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])


class BrokenError(RuntimeError):
    """What fails in these tests."""


def failing_at(*calls: int) -> Callable[[], None]:
    """Return a function that raises at the calls that are listed, counted from 1."""
    count = iter(range(1, 10**6))

    def tick() -> None:
        if next(count) in calls:
            raise BrokenError("camera timed out")

    return tick


def around(env: Any, before: Callable[[Any], None] = lambda env: None, after: Any = lambda env: None) -> Any:
    """Return a wrapper that calls ``before`` and ``after`` with what it wraps, within its ``step`` and ``reset``."""
    kind = BaseParallelWrapper if isinstance(env, ParallelEnv) else BaseWrapper

    class Around(kind):
        def step(self, action: Any) -> Any:
            before(self.env)
            return self.env.step(action)

        def reset(self, seed: Any = None, options: Any = None) -> Any:
            answer = self.env.reset(seed=seed, options=options)
            after(self.env)
            return answer

    return Around(env)


def limited(
    make: Any,
    tick: Callable[[], None] = lambda: None,
    inner: Callable[[Any], Any] = lambda env: env,
    between: Callable[[Any], Any] = lambda env: env,
    selector: int = 0,
    **limits: Any,
) -> Any:
    """Return a team under a limit, whose cheap (10) and dear (40) sub-policies tick; reset."""
    env = inner(make())
    use_meters(env)

    def act(observation: Any) -> Any:
        tick()
        return np.zeros(1, np.float32)

    policies = [FunctionPolicy(act, CHEAP, "cheap"), FunctionPolicy(act, DEAR, "dear")]
    kind = of_kind(env)
    env = between(kind.SubPolicyAction(env, policies, selector_flops=selector))
    env = kind.ComputeLimit(env, **limits)
    env.reset(seed=0)
    for agent in AGENTS:  # so that totals are of this episode
        get_meter(f"policy.{agent}").reset_totals()
    return env


def step(env: Any, choice: int = 0, selector: int = 0) -> None:
    """Let all agents of a parallel environment act, or the one of an AEC environment whose turn it is."""
    acting = [env.agent_selection] if hasattr(env, "agent_selection") else env.agents
    for agent in acting:
        get_meter(f"policy.{agent}").add(selector, "selector")
    env.step(choice if hasattr(env, "agent_selection") else dict.fromkeys(acting, choice))


def executed() -> int:
    return sum(get_meter(f"policy.{agent}").totals["act"] for agent in AGENTS)


@both
def test_a_failed_sub_policy_costs_its_call_and_no_other(make: Any) -> None:
    # the second call raises: parallel 2 of 3 agents were called, AEC the second turn; the rest was never called
    env = limited(make, failing_at(2), team_max_flops=1000)
    with pytest.raises(BrokenError):
        for _ in range(2):
            step(env)
    assert (executed(), 1000 - env.remaining()) == (20, 20)
    step(env)
    assert 1000 - env.remaining() == executed() == (50 if make is Team else 30)


@both
def test_a_failed_environment_leaves_the_account_of_what_ran(make: Any) -> None:
    fails = failing_at(2)
    env = limited(make, inner=lambda env: around(env, lambda _: fails()), team_max_flops=1000)
    step(env)
    with pytest.raises(BrokenError):
        step(env, 1)
    assert 1000 - env.remaining() == executed() == (150 if make is Team else 50)
    step(env)


@both
def test_a_failed_wrapper_between_does_not_blame_the_selector(make: Any) -> None:
    """The selectors were charged and nothing was chosen; they run again."""
    fails = failing_at(1, 3)
    env = limited(make, between=lambda env: around(env, lambda _: fails()), selector=5, team_max_flops=1000)
    each = 3 if make is Team else 1
    for expected in (5, 20, 25, 40):
        if expected in (5, 25):
            with pytest.raises(BrokenError):
                step(env, selector=5)
        else:
            step(env, selector=5)
        assert 1000 - env.remaining() == executed() == each * expected


@both
def test_an_action_that_is_refused_does_not_blame_the_selector(make: Any) -> None:
    env = limited(make, selector=5, team_max_flops=1000)
    for _ in range(3):
        with pytest.raises(TypeError, match="no sub-policy"):
            step(env, choice=7, selector=5)
    step(env, selector=5)
    assert 1000 - env.remaining() == executed()


@both
def test_a_selector_that_ran_twice_is_named_once_and_booked(make: Any) -> None:
    env = limited(make, selector=5, team_max_flops=1000)
    with pytest.raises(CostError):
        step(env, selector=10)
    step(env)
    assert 1000 - env.remaining() == executed() == (30 + 30 if make is Team else 10 + 10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_allocation_that_fails_does_not_blame_the_selectors(bad: float) -> None:
    env = limited(Team, selector=5, team_max_flops=1000)
    for _ in range(2):
        for agent in AGENTS:
            get_meter(f"policy.{agent}").add(5, "selector")
        with pytest.raises(NonFiniteError):
            env.allocate({agent: [bad, 1.0] for agent in AGENTS})
    step(env, selector=5)
    assert 1000 - env.remaining() == executed() == 3 * (5 + 5 + 5 + 10)


@both
@pytest.mark.parametrize("mode", ["truncate", "terminate"])
def test_what_a_failed_step_has_exhausted_ends_at_the_next_one(make: Any, mode: Any) -> None:
    # three cheap actions are 30 of 35, and the environment raises after the third; 5 pay for no other
    fails = failing_at(1 if make is Team else 3)
    env = limited(make, inner=lambda env: around(env, lambda _: fails()), team_max_flops=35, on_exhausted=mode)
    with pytest.raises(BrokenError):
        for _ in range(3):
            step(env)
    assert env.remaining() == 5
    if make is Team:
        observations, _, terminations, truncations, _ = env.step(dict.fromkeys(AGENTS, 0))
        assert set(observations) == set(AGENTS)
        assert not env.agents
    else:
        env.step(0)
        terminations, truncations = env.terminations, env.truncations
    assert all((terminations if mode == "terminate" else truncations).values())
    assert executed() == 30


@both
def test_the_steps_of_a_failed_call_are_nobodys_and_its_flops_the_sub_policys(make: Any) -> None:
    env = limited(make, failing_at(1), team_max_flops=1000)
    env = of_kind(env).RecordComputeStatistics(env)
    env.reset(seed=0)
    with pytest.raises(BrokenError):
        step(env)
    while env.agents and not (hasattr(env, "agent_selection") and env.truncations[env.agent_selection]):
        step(env)
    account = env.compute_summary("agent_0")
    assert (account["flops"], account["steps"]) == (CHEAP * (STEPS + 1), STEPS)
    assert account["share_flops"] == {"cheap": 1.0, "dear": 0.0, "selector": 0.0}
    assert account["share_steps"]["cheap"] == 1.0


@both
def test_without_a_last_action_the_failed_episode_is_truncated(make: Any) -> None:
    """Each has its own limit of one cheap action; it fails and there is nothing to hold."""
    env = limited(make, failing_at(1), max_flops=CHEAP, on_exhausted="hold")
    with pytest.raises(BrokenError):
        step(env)
    step(env)
    assert not env.agents or all(env.truncations.values())
    assert executed() == CHEAP


@both
def test_a_reset_within_a_step_is_refused_before_anything_runs_unlimited(make: Any) -> None:
    turn = iter(range(100))
    env = limited(
        make, between=lambda env: around(env, lambda inner: next(turn) == 2 and inner.reset()), team_max_flops=PATH
    )
    with pytest.raises(WrapperOrderError, match=r"resets within its step\(\)"):
        for _ in range(3):
            step(env, 1)
    assert executed() <= PATH


@both
def test_acting_within_a_reset_is_refused_before_it_runs(make: Any) -> None:
    def act(env: Any) -> None:
        env.step(0 if hasattr(env, "agent_selection") else dict.fromkeys(AGENTS, 0))

    before = executed()
    with pytest.raises(WrapperOrderError, match=r"acts within its reset\(\)"):
        limited(make, between=lambda env: around(env, after=act), team_max_flops=PATH)
    assert executed() == before


@both
def test_a_reset_inside_that_did_not_come_through_the_limit_is_noticed(make: Any) -> None:
    env = limited(make, team_max_flops=PATH)
    env.env.reset()
    with pytest.raises(WrapperOrderError, match="not through the ComputeLimit"):
        step(env, 1)
    env.reset()
    step(env)


# The account inside, begun anew, has no charge when the episode ends.
@pytest.mark.filterwarnings("ignore:An episode has ended and meter")
@both
def test_a_reset_inside_an_opaque_limit_forgets_nothing_that_was_spent(make: Any) -> None:
    """A recorder inside begins its accounts anew, as an episode has begun there; the limit's go on."""
    env = make()
    use_meters(env)
    turn = iter(range(100))
    env = around(of_kind(env).RecordComputeStatistics(env), lambda inner: next(turn) == 1 and inner.reset())
    env = of_kind(env).ComputeLimit(env, team_max_flops=100, on_exhausted="truncate")
    env.reset(seed=0)
    action = np.zeros(1, np.float32)
    for agent in ("agent_0", "agent_0" if make is Team else "agent_1"):
        get_meter(f"policy.{agent}").add(60)
        env.step(action if hasattr(env, "agent_selection") else dict.fromkeys(AGENTS, action))
    assert env.overshoot() == 20


@both
def test_what_a_wrapper_runs_within_its_reset_is_paid_from_an_opaque_limit(make: Any) -> None:
    env = make()
    use_meters(env)
    env = around(env, after=lambda inner: get_meter("policy.agent_1").add(30))
    env = of_kind(env).ComputeLimit(env, team_max_flops=100, on_exhausted="truncate")
    for _ in range(2):
        env.reset(seed=0)
        assert env.remaining() == 70


@both
def test_a_longer_horizon_of_its_own_keeps_nothing_for_steps_that_never_come(make: Any) -> None:
    # max_cycles is 4 and horizon 9: with 90 above the path of 4 steps three agents upgrade once each
    env = limited(make, team_max_flops=PATH + 90, horizon=9)
    while env.agents and not (hasattr(env, "agent_selection") and env.truncations[env.agent_selection]):
        step(env, 1)
    assert spent(env) == executed() == PATH + 90
