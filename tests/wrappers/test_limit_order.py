"""ComputeLimit notices resets and steps that did not come through it: none of them lifts a limit."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.wrappers import Autoreset, TimeLimit

from budget_wrappers.errors import WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, RecordComputeStatistics, SubPolicyAction
from tests.wrappers.environments import SpacesEnv, constant_action

STEPS = 20
ACTION = constant_action("box")


class Recovers(gym.Wrapper):
    """Resets in the middle of a step, as after a crash: each ``every``-th time it steps again after a reset."""

    def __init__(self, env: gym.Env, every: int = 3) -> None:
        super().__init__(env)
        self._every, self._steps = every, 0

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps % self._every == 0:
            self.env.reset()
        return self.env.step(action)


class Retries(gym.Wrapper):
    """Resets when a step raises, and steps again."""

    def step(self, action: Any) -> Any:
        try:
            return self.env.step(action)
        except ZeroDivisionError:
            self.env.reset()
            return self.env.step(action)


class NoOpStarts(gym.Wrapper):
    """Acts within its reset."""

    def __init__(self, env: gym.Env, action: Any = 1, act: Callable[[], Any] = lambda: None) -> None:
        super().__init__(env)
        self._action, self._act = action, act

    def reset(self, **arguments: Any) -> Any:
        self.env.reset(**arguments)
        for _ in range(10):
            self._act()
            obs, _, _, _, info = self.env.step(self._action)
        return obs, {key: value for key, value in info.items() if key not in ("duration", "option")}


class ResetsByItself(gym.Wrapper):
    """Resets within the step after an end, as Gymnasium's Autoreset does, which it is not."""

    _over = False

    def step(self, action: Any) -> Any:
        if self._over:
            self._over = False
            obs, info = self.env.reset()
            return obs, 0.0, False, False, info
        transition = self.env.step(action)
        self._over = transition[2] or transition[3]
        return transition


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(
    meter: ComputeMeter, between: Callable[[gym.Env], gym.Env], hold: int = 2, inside: Any = lambda env: env
) -> gym.Env:
    """Return sub-policies of 10 and 100 FLOPs in an episode of 20 steps, with a wrapper around them."""
    calls = iter(range(1000))

    def act(observation: Any) -> Any:
        if next(calls) == 3:
            1 / 0  # noqa: B018 - the crash
        return ACTION

    policies = [FunctionPolicy(lambda obs: ACTION, 10, "cheap"), FunctionPolicy(act, 100, "dear")]
    return between(SubPolicyAction(inside(TimeLimit(SpacesEnv(), STEPS)), policies, hold=hold, meter=meter))


def refused(meter: ComputeMeter, between: Callable[[gym.Env], gym.Env], hold: int = 2, limit: int = 600) -> str:
    """Play until the order of wrappers is refused; return that message. No more than the limit may have run."""
    env = ComputeLimit(options(meter, between, hold), limit, meter=meter)
    with pytest.raises(WrapperOrderError) as caught:
        env.reset(seed=0)
        for _ in range(STEPS):
            with suppress(ZeroDivisionError):
                env.step(1)
    assert meter.totals["act"] <= limit
    return str(caught.value)


@pytest.mark.parametrize("hold", [1, 2, 5])
@pytest.mark.parametrize("between", [Recovers, lambda env: Recovers(env, 2), Retries], ids=["third", "second", "crash"])
def test_a_reset_within_a_step_is_refused_before_anything_runs_unlimited(
    meter: ComputeMeter, between: Callable[[gym.Env], gym.Env], hold: int
) -> None:
    message = refused(meter, between, hold)
    assert "resets within its step()" in message
    assert "outside of ComputeLimit" in message


def test_acting_within_a_reset_is_refused_before_it_runs(meter: ComputeMeter) -> None:
    message = refused(meter, NoOpStarts)
    assert "acts within its reset()" in message
    assert meter.totals["act"] == 0


def test_an_autoreset_inside_is_refused_at_once_with_the_remedy(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"Autoreset\(ComputeLimit\(env"):
        ComputeLimit(options(meter, Autoreset), 600, meter=meter)
    with pytest.raises(WrapperOrderError, match=r"Autoreset\(ComputeLimit\(env"):
        ComputeLimit(options(meter, lambda env: env, inside=Autoreset), 600, meter=meter)
    with pytest.raises(WrapperOrderError, match=r"Autoreset\(ComputeLimit\(env"):
        ComputeLimit(Autoreset(SpacesEnv()), 600, "truncate", meter=meter)


def test_an_autoreset_outside_gives_each_episode_its_own_limit(meter: ComputeMeter) -> None:
    env = Autoreset(ComputeLimit(options(meter, lambda env: env, hold=1), 300, meter=meter))
    env.reset(seed=0)
    spent = []
    for _ in range(2 * (STEPS + 1)):
        if any(env.step(0)[2:4]):
            spent.append(300 - env.env.remaining)
    assert spent == [200, 200]


def test_a_wrapper_that_resets_by_itself_is_refused_when_it_does(meter: ComputeMeter) -> None:
    env = ComputeLimit(ResetsByItself(options(meter, lambda env: env)), 400, meter=meter)
    env.reset(seed=0)
    while not any(env.step(0)[2:4]):
        pass
    with pytest.raises(WrapperOrderError, match="resets within its step"):
        env.step(0)


def test_a_reset_inside_that_did_not_come_through_the_limit_is_noticed(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter, lambda env: env), 400, meter=meter)
    env.reset(seed=0)
    env.step(0)
    env.env.reset()
    with pytest.raises(WrapperOrderError, match="reset since the last step, and not through the ComputeLimit"):
        env.step(0)
    env.reset()
    env.step(0)
    assert env.remaining == 380


def test_a_step_inside_that_did_not_come_through_the_limit_is_noticed_and_booked(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter, lambda env: env), 400, meter=meter)
    env.reset(seed=0)
    env.env.step(0)
    with pytest.raises(WrapperOrderError, match="stepped since the last step, and not through the ComputeLimit"):
        env.step(0)
    assert env.remaining == 380
    env.step(0)
    assert env.remaining == 360


def test_an_episode_that_the_limit_has_ended_does_not_go_on(meter: ComputeMeter) -> None:
    env = ComputeLimit(SpacesEnv(), 100, "truncate", meter=meter)
    env.reset(seed=0)
    meter.add(100)
    assert env.step(ACTION)[3] is True
    with pytest.raises(WrapperOrderError, match="has ended this episode"):
        env.step(ACTION)
    env.reset()
    assert env.step(ACTION)[3] is False


@pytest.mark.parametrize("opaque", [True, False])
def test_a_step_after_the_environments_own_end_begins_an_episode(meter: ComputeMeter, opaque: bool) -> None:
    """An environment that resets by itself inside, unknown to all wrappers: 4 steps of 10 each episode, and a reset."""
    env: gym.Env = ResetsByItself(SpacesEnv(end_at=4))
    if not opaque:
        policies = [FunctionPolicy(lambda obs: ACTION, 10, "cheap")]
        env = SubPolicyAction(env, policies, hold=1, meter=meter)
    env = ComputeLimit(env, 100, "truncate", meter=meter)
    env.reset(seed=0)
    spent = []
    for _ in range(14):
        if opaque:
            meter.add(10)
        if any(env.step(ACTION if opaque else 0)[2:4]):
            spent.append(100 - env.remaining)
    assert spent == [40, 50, 50]  # the step that only resets is charged as well


def test_what_a_wrapper_runs_within_its_reset_is_paid_from_an_opaque_limit(meter: ComputeMeter) -> None:
    # ten calls of 7 within the reset, of 100; 30 more exhaust it
    env = ComputeLimit(NoOpStarts(SpacesEnv(), ACTION, lambda: meter.add(7)), 100, "truncate", meter=meter)
    for _ in range(2):
        meter.add(1000)  # before a reset: belongs to no episode
        env.reset(seed=0)
        assert env.remaining == 30
        meter.add(30)
        assert env.step(ACTION)[3] is True


def test_a_reset_inside_an_opaque_limit_forgets_nothing_that_was_spent(meter: ComputeMeter) -> None:
    """A recorder inside begins its account anew, as an episode has begun there; the limit's goes on."""
    env = ComputeLimit(Recovers(RecordComputeStatistics(SpacesEnv(), meter), 2), 100, "truncate", meter=meter)
    env.reset(seed=0)
    ends = []
    for _ in range(4):
        meter.add(30)
        ends.append(env.step(ACTION)[3])
    assert ends == [False, False, False, True]
    assert env.overshoot == 20
