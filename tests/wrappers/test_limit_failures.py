"""ComputeLimit when something inside raises: what ran is in the account, and the limit goes on from there."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from budget_wrappers.errors import CostError, MeterError, NonFiniteError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction
from tests.wrappers.environments import HORIZON, SpacesEnv, constant_action

CHEAP, DEAR = 10, 40


class BrokenError(RuntimeError):
    """What fails in these tests."""


class Flaky:
    """Raises at the calls that are listed, counted from 1."""

    def __init__(self, *at: int, error: type[BaseException] = BrokenError) -> None:
        self.calls, self._at, self._error = 0, at, error

    def __call__(self) -> None:
        self.calls += 1
        if self.calls in self._at:
            raise self._error("camera timed out")


class FlakyWrapper(gym.Wrapper):
    """Raises before or after the step that it hands on."""

    def __init__(self, env: gym.Env, flaky: Flaky, after: bool = False) -> None:
        super().__init__(env)
        self.flaky, self._after = flaky, after

    def step(self, action: Any) -> Any:
        if not self._after:
            self.flaky()
        transition = self.env.step(action)
        if self._after:
            self.flaky()
        return transition


def policy(cost: int, name: str, flaky: Callable[[], None] = lambda: None) -> FunctionPolicy:
    def act(observation: Any) -> Any:
        flaky()
        return constant_action("box")

    return FunctionPolicy(act, cost, name)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def limited(
    meter: ComputeMeter,
    limit: int,
    mode: Any = "cheapest",
    cheap: Callable[[], None] = lambda: None,
    environment: Flaky | None = None,
    between: Callable[[gym.Env], gym.Env] = lambda env: env,
    hold: int = 3,
    selector: int = 0,
) -> ComputeLimit:
    """Return cheap (10) and dear (40) sub-policies in an episode of 12 steps, under a limit."""
    env: gym.Env = TimeLimit(FlakyWrapper(SpacesEnv(), environment or Flaky()), HORIZON)
    policies = [policy(CHEAP, "cheap", cheap), policy(DEAR, "dear")]
    env = between(SubPolicyAction(env, policies, hold=hold, meter=meter, selector_flops=selector))
    env = ComputeLimit(env, limit, mode, meter=meter)
    env.reset(seed=0)
    return env


def test_a_failed_sub_policy_is_not_taken_for_the_selector(meter: ComputeMeter) -> None:
    # 10 acted, 10 raised: 20 of 480 are spent; the next option of three costs 30
    env = limited(meter, 480, cheap=Flaky(2))
    with pytest.raises(BrokenError):
        env.step(0)
    assert env.remaining == 480 - 20
    assert float(env.step(0)[4]["duration"]) == 3.0
    assert env.remaining == 480 - 50


def test_a_failed_environment_leaves_the_account_of_what_ran(meter: ComputeMeter) -> None:
    # two steps of 40 have run and the third has acted: 120, of which two steps were made
    env = limited(meter, 480, environment=Flaky(3))
    with pytest.raises(BrokenError):
        env.step(1)
    assert (env.remaining, env.episode.steps) == (480 - 120, 2)
    assert env.step(0)[3] is False


@pytest.mark.parametrize("after", [False, True])
def test_a_failed_wrapper_between_is_nobodys_charge(meter: ComputeMeter, after: bool) -> None:
    # before the option nothing ran, after it all three calls of 10 did
    env = limited(meter, 480, between=lambda env: FlakyWrapper(env, Flaky(1), after))
    with pytest.raises(BrokenError):
        env.step(0)
    assert env.remaining == 480 - after * 30
    assert env.step(0)[4]["duration"] == 3.0
    assert env.episode.steps == 3 + after * 3


def test_an_interrupt_is_a_failure_like_any_other(meter: ComputeMeter) -> None:
    env = limited(meter, 480, cheap=Flaky(3, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        env.step(0)
    assert env.remaining == 480 - 30
    env.step(0)


def test_a_reward_that_is_refused_has_cost_what_ran(meter: ComputeMeter) -> None:
    def spoiled(env: gym.Env) -> gym.Env:
        rewards = iter([float("nan"), *[1.0] * 9])
        return gym.wrappers.TransformReward(env, lambda reward: next(rewards))

    env = limited(meter, 480, between=spoiled)
    with pytest.raises(NonFiniteError):
        env.step(0)
    assert env.remaining == 480 - 30
    env.step(0)


def test_the_flops_of_a_failed_call_belong_to_its_sub_policy(meter: ComputeMeter) -> None:
    # four calls of 10: one failed, three acted; nothing is the selector's
    chooser = SubPolicyAction(
        TimeLimit(SpacesEnv(), 3), [policy(CHEAP, "cheap", Flaky(1)), policy(DEAR, "dear")], meter=meter, hold=3
    )
    env = RecordComputeStatistics(chooser, meter)
    env.reset(seed=0)
    with pytest.raises(BrokenError):
        env.step(0)
    account = env.step(0)[4]["compute"]
    assert (account["flops"], account["steps"]) == (40.0, 3.0)
    assert (account["share_flops"]["cheap"], account["share_flops"]["selector"]) == (1.0, 0.0)


@pytest.mark.parametrize(("mode", "flags"), [("truncate", (False, True)), ("terminate", (True, False))])
def test_what_a_failed_step_has_exhausted_ends_at_the_next_one(
    meter: ComputeMeter, mode: Any, flags: tuple[bool, bool]
) -> None:
    # 100, selector 15: dear for 2 steps is 95 with the first call, raised in the second; 5 pay for no call and choice.
    # The selector is not asked again, as remaining says; the step after runs nothing and is the end
    env = limited(meter, 100, mode, environment=Flaky(2), hold=2, selector=15)
    meter.add(15, "selector")
    with pytest.raises(BrokenError):
        env.step(1)
    assert env.remaining == 5
    transition = env.step(1)
    assert transition[2:4] == flags
    assert (transition[4]["duration"], transition[4]["option"]) == (0.0, -1.0)
    assert (env.unwrapped.steps, meter.totals["act"]) == (1, 95)


def test_what_a_failed_step_has_exhausted_is_held_at_the_next_one(meter: ComputeMeter) -> None:
    # 95 of 100 as above; the last action is then repeated for the 11 steps that are left
    env = limited(meter, 100, "hold", environment=Flaky(2), hold=2, selector=15)
    meter.add(15, "selector")
    with pytest.raises(BrokenError):
        env.step(1)
    transition = env.step(1)
    assert (transition[3], transition[4]["duration"], env.unwrapped.steps) == (True, 11.0, HORIZON)
    assert env.limit_report() == {"limit": 100.0, "overshoot": 0.0, "held_steps": 11.0}


def test_a_failed_hold_goes_on_at_the_next_step(meter: ComputeMeter) -> None:
    # 30 pay for one option; of the 9 steps that are held in it the fourth raises: call 3 + 4
    env = limited(meter, 30, environment=Flaky(7))
    with pytest.raises(BrokenError):
        env.step(0)
    assert (env.episode.steps, env.episode.held_steps) == (6, 3)
    transition = env.step(0)
    assert (transition[3], transition[4]["duration"]) == (True, 6.0)
    assert (env.episode.steps, env.episode.held_steps, meter.totals["act"]) == (12, 9, 30)


def test_without_a_last_action_the_failed_episode_is_truncated(meter: ComputeMeter) -> None:
    # the limit pays for one option of three, whose first call fails: the 20 that are left do not pay for another
    env = limited(meter, 30, cheap=Flaky(1), hold=3)
    with pytest.raises(BrokenError):
        env.step(0)
    observation, reward, terminated, truncated, _ = env.step(0)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert env.observation_space.contains(observation)
    assert meter.totals["act"] == 10


def test_a_selector_that_ran_twice_is_named_once_and_booked(meter: ComputeMeter) -> None:
    # its first call has raised after it was charged: 2 · 5 of 480; then the option of 30
    env = limited(meter, 480, selector=5)
    meter.add(5, "selector")
    meter.add(5, "selector")
    with pytest.raises(CostError):
        env.step(0)
    assert env.remaining == 470
    env.step(0)
    assert env.remaining == 440


def test_a_batch_that_is_refused_has_run(meter: ComputeMeter) -> None:
    env = ComputeLimit(SpacesEnv(), 100, "truncate", meter=meter)
    env.reset(seed=0)
    meter.add(60, rows=2)
    with pytest.raises(MeterError):
        env.step(constant_action("box"))
    meter.add(50)
    assert env.step(constant_action("box"))[3] is True
    assert env.overshoot == 10


def test_an_opaque_policy_pays_for_a_step_that_failed(meter: ComputeMeter) -> None:
    # 60 for a step that raised and 60 for the next are 20 above the limit, which ends there
    env = ComputeLimit(FlakyWrapper(SpacesEnv(), Flaky(1)), 100, "truncate", meter=meter)
    env.reset(seed=0)
    meter.add(60)
    with pytest.raises(BrokenError):
        env.step(constant_action("box"))
    assert env.remaining == 40
    meter.add(60)
    assert env.step(constant_action("box"))[3] is True
    assert env.overshoot == 20


def test_what_a_failed_step_has_cost_is_penalised_in_the_next_one(meter: ComputeMeter) -> None:
    # three calls of 10 in the failed option, one step of which counts reward 1; rewards 2 + 3 + 4 less 0.1 · (20 + 30)
    env = limited(meter, 480, environment=Flaky(2), between=lambda env: ComputePenaltyReward(env, 0.1, meter=meter))
    with pytest.raises(BrokenError):
        env.step(0)
    assert env.step(0)[1] == pytest.approx(2 + 3 + 4 - 0.1 * (20 + 30))


def test_whoever_catches_the_error_is_told_when_nothing_is_left(meter: ComputeMeter) -> None:
    env = limited(meter, 100, "truncate", environment=Flaky(2), hold=2, selector=15)
    meter.add(15, "selector")
    with pytest.raises(BrokenError) as caught:
        env.step(1)
    assert "5 of 100 FLOPs are left" in "".join(getattr(caught.value, "__notes__", []))


def test_a_sub_policy_that_ran_more_than_it_declares_is_charged_what_ran(meter: ComputeMeter) -> None:
    class Greedy:
        name, flops, flops_of_last_call = "greedy", 10, 25

        def __call__(self, observation: Any) -> Any:
            return np.zeros(3, np.float32)

    env = ComputeLimit(SubPolicyAction(SpacesEnv(), [Greedy()], hold=1, meter=meter), 40, "truncate", meter=meter)
    env.reset(seed=0)
    with pytest.raises(CostError, match="ran 25 FLOPs"):
        env.step(0)
    assert (env.remaining, meter.totals["act"]) == (15, 25)
