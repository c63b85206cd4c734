"""step(None) under ComputeLimit: a selector inside is bounded as one outside is, also where something raises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_wrappers.core import Choice
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, SubPolicyAction
from tests.gymnasium_versions import RepeatAction
from tests.wrappers.environments import CHEAP, DEAR, HORIZON, Alternating, SpacesEnv, cheap
from tests.wrappers.test_selector import Scripted, ended, options


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


class Drawing:
    """A selector of costs up to what it declares; picks and costs are drawn once and the same for all that ask."""

    def __init__(self, seed: int, count: int, durations: list[int], flops: int) -> None:
        self.flops, self._count, self._durations = flops, count, durations
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Any) -> Choice:
        rng = self._rng
        cost = int(rng.integers(0, self.flops + 1)) if rng.random() < 0.5 else self.flops
        return Choice(int(rng.integers(self._count)), cost, int(rng.choice(self._durations)))


stacks = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "hold": st.sampled_from([[1], [3], [1, 4], [2, 3, 5]]),
        "flops": st.sampled_from([0, 1, 7, 45, 200]),
        "place": st.floats(0.0, 1.0),
        "mode": st.sampled_from(["cheapest", "hold", "truncate", "terminate"]),
    }
)


def limited(drawn: dict[str, Any], meter: ComputeMeter, inside: bool) -> tuple[ComputeLimit, Drawing]:
    """Return the stack of a drawn case; the selector is within it or outside."""
    selector = Drawing(drawn["seed"], 2, drawn["hold"], drawn["flops"])
    env = options(meter, selector if inside else None, hold=drawn["hold"], selector_flops=drawn["flops"])
    least = drawn["flops"] + min(drawn["hold"]) * CHEAP
    most = HORIZON * (DEAR + drawn["flops"])
    return ComputeLimit(env, least + int(drawn["place"] * (most - least)), drawn["mode"], meter=meter), selector


def story(env: ComputeLimit, meter: ComputeMeter, act: Callable[[], Any]) -> list[Any]:
    told: list[Any] = []
    env.reset(seed=0)
    transition: Any = (None, 0.0, False, False, {})
    while not ended(transition):
        transition = env.step(act())
        told.append((*transition[1:], env.remaining, env.overshoot, meter.totals["act"]))
    return told


@settings(max_examples=200, deadline=None)
@given(drawn=stacks)
def test_under_a_limit_a_choice_inside_is_as_one_outside(drawn: dict[str, Any]) -> None:
    meters = ComputeMeter("inside"), ComputeMeter("outside")
    (env, _), (other, selector) = (
        limited(drawn, one, inside) for one, inside in zip(meters, (True, False), strict=True)
    )

    def outside() -> int:
        choice = selector(None)
        meters[1].add(choice.flops, "gate")
        return drawn["hold"].index(choice.duration) * 2 + choice.index

    told = story(env, meters[0], lambda: None)
    assert told == story(other, meters[1], outside)
    assert told[-1][-1] <= env.episode.limit


@settings(max_examples=100, deadline=None)
@given(drawn=stacks, period=st.integers(2, 7))
def test_no_failure_lets_a_choice_inside_pass_the_limit(drawn: dict[str, Any], period: int) -> None:
    meter, calls = ComputeMeter("tests"), [0]

    def fails_at_times(value: Any) -> Any:
        calls[0] += 1
        if calls[0] % period == 0:
            raise RuntimeError("lost contact")
        return value

    env, selector = limited(drawn, meter, inside=True)
    inner = env.env
    for policy in inner.sub_policies:
        policy._function = lambda obs, act=policy._function: fails_at_times(act(obs))
    inner._selector.selector = lambda obs: fails_at_times(selector(obs))
    env.reset(seed=0)
    over, tries = False, 0
    while not over and tries < 200:
        tries += 1
        try:
            over = ended(env.step(None))
        except RuntimeError:
            continue
    assert over
    assert meter.totals["act"] <= env.episode.limit
    assert env.overshoot == 0


@pytest.mark.skipif(RepeatAction is None, reason="Gymnasium 1.3 has it")
@pytest.mark.parametrize("mode", ["cheapest", "hold", "truncate"])
def test_a_wrapper_between_that_steps_twice_stays_within_the_limit(mode: str) -> None:
    for seed in range(60):
        meter, rng = ComputeMeter("tests"), np.random.default_rng(seed)
        flops = int(rng.integers(0, 30))
        env = options(meter, Drawing(seed, 2, [1, 2], flops), hold=[1, 2])
        limit = int(rng.integers(flops + CHEAP, HORIZON * (DEAR + flops)))
        outer = ComputeLimit(RepeatAction(env, 3), limit, mode, meter=meter)
        outer.reset(seed=0)
        while not ended(outer.step(None)):
            pass
        assert meter.totals["act"] <= limit


def test_where_a_limit_holds_the_action_the_selector_is_not_asked(meter: ComputeMeter) -> None:
    # 80 = 70 for the choice + 10 for the cheapest step: the other 11 steps repeat its action
    selector = Alternating()
    env = ComputeLimit(options(meter, selector), 80, meter=meter)
    env.reset(seed=0)
    transition = env.step(None)
    assert (transition[3], transition[4]["duration"], transition[4]["option"]) == (True, 12.0, 0.0)
    assert (selector._asked, meter.totals["act"], env.remaining) == (1, 80, 0)


def test_a_selector_that_cannot_be_paid_after_a_failure_is_not_asked(meter: ComputeMeter) -> None:
    # 12 steps of 10, limit 130: a failure of the first dear call leaves 130 − 70 − … too little for another choice
    failing = FunctionPolicy(lambda obs: 1 / 0, DEAR, "failing")
    env = SubPolicyAction(
        TimeLimit(SpacesEnv(), 3), [cheap("box"), failing], 1, 0.0, meter, selector=Scripted([Choice(1, 70)], 70)
    )
    limit = ComputeLimit(env, 130, "truncate", meter=meter)
    limit.reset(seed=0)
    with pytest.raises(ZeroDivisionError):
        limit.step(None)
    assert limit.remaining == 130 - 70 - DEAR  # 20: a cheap step, and no choice of 70 before it
    transition = limit.step(None)
    assert (transition[4]["option"], len(env.selector.seen), limit.remaining) == (0.0, 1, 10)
