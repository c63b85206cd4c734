"""SubPolicyAction whose selector picks how long a choice lasts, alone and under a limit."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputeLimit, SubPolicyAction
from tests.wrappers.environments import HORIZON, SpacesEnv, cheap, dear


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, hold: Any = (1, 4), **arguments: Any) -> SubPolicyAction:
    """Return cheap (10 a step) and dear (40 a step) in an episode of 12 steps."""
    env = TimeLimit(SpacesEnv(), HORIZON)
    return SubPolicyAction(env, [cheap("box"), dear("box")], hold=hold, meter=meter, **arguments)


def ran(env: gym.Env, actions: list[int]) -> list[tuple[float, float]]:
    """Return sub-policy and duration of each action."""
    env.reset(seed=0)
    infos = [env.step(action)[4] for action in actions]
    return [(float(info["option"]), float(info["duration"])) for info in infos]


def test_an_action_is_a_sub_policy_and_a_duration(meter: ComputeMeter) -> None:
    env = options(meter)
    assert env.action_space == gym.spaces.Discrete(4)
    assert [env.choice_of(action) for action in range(4)] == [(0, 1), (1, 1), (0, 4), (1, 4)]
    assert ran(env, [0, 1, 2, 3]) == [(0, 1), (1, 1), (0, 4), (1, 4)]


def test_durations_are_sorted(meter: ComputeMeter) -> None:
    assert options(meter, [10, 1, np.int64(3)]).durations == (1, 3, 10)


def test_the_price_is_that_of_the_steps_really_taken(meter: ComputeMeter) -> None:
    env = options(meter, weight=0.5)
    env.reset()
    # c_dear = 4: one step 1 − .5·1·4, then rewards 2 + 3 + 4 + 5 of four steps less .5·4·4
    assert [env.step(1)[1], env.step(3)[1]] == [1 - 2.0, 14 - 8.0]


@pytest.mark.parametrize("hold", [[], [0, 1], [1, 2.5], [True], "12", None])
def test_durations_are_positive_whole_numbers(meter: ComputeMeter, hold: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number of steps >= 1"):
        options(meter, hold)


def test_a_duration_given_twice_raises(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="a duration twice"):
        options(meter, [2, 5, 2])


def test_an_action_beyond_the_last_duration_raises(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    with pytest.raises(SpaceError, match="expected 0 … 3"):
        env.step(4)


# Under a limit: 12 steps of cheap are 120 FLOPs, of dear 480; a selector call costs 15.


def limited(meter: ComputeMeter, flops: int, mode: str = "cheapest") -> ComputeLimit:
    return ComputeLimit(options(meter, selector_flops=15), flops, mode, meter=meter)


def paid(env: ComputeLimit, meter: ComputeMeter, actions: list[int]) -> list[tuple[float, float]]:
    """Run actions, each after a selector call; the last one again until the episode ends."""
    env.reset(seed=0)
    choices: list[tuple[float, float]] = []
    ended = False
    while not ended:
        meter.add(15, "selector")
        _, _, terminated, truncated, info = env.step(actions[min(len(choices), len(actions) - 1)])
        choices.append((float(info["option"]), float(info["duration"])))
        ended = terminated or truncated
    return choices


def test_deciding_too_often_is_stretched_to_keep_the_cheapest_path(meter: ComputeMeter) -> None:
    # three long cheap choices: 120 + 3·15 = 165, exactly the limit, so that none may be short
    assert paid(limited(meter, 165), meter, [0]) == [(0, 4)] * 3
    assert meter.totals["act"] == 165


def test_one_extra_decision_is_what_one_more_call_buys(meter: ComputeMeter) -> None:
    # 180 pays one call more: 1 step, then 11 left need three long ones (4, 4, 3)
    assert paid(limited(meter, 180), meter, [0, 0, 0]) == [(0, 1), (0, 4), (0, 4), (0, 3)]


def test_a_dear_choice_falls_back_to_the_cheapest_of_its_own_duration(meter: ComputeMeter) -> None:
    # 300: a long dear one leaves 300 − 15 − 160 = 125 of the 110 that 8 cheap steps and two calls need: fits. The next:
    # 125 − 15 = 110; dear 160 does not fit; cheap for 4 steps leaves 70 >= 55
    assert paid(limited(meter, 300), meter, [3]) == [(1, 4), (0, 4), (0, 4)]


def test_the_first_decision_may_be_the_shortest(meter: ComputeMeter) -> None:
    # one call and one cheap step: 25; what is left is held to the end
    assert paid(limited(meter, 25, "cheapest"), meter, [3]) == [(0, 12)]
    assert meter.totals["act"] == 25


@pytest.mark.parametrize(("mode", "flags"), [("truncate", (False, True)), ("terminate", (True, False))])
def test_an_exhausted_limit_ends_after_the_longest_that_fits(
    meter: ComputeMeter, mode: str, flags: tuple[bool, bool]
) -> None:
    # 60: 45 after the call pays four cheap steps, not one long dear one; 5 are left: the end
    env = limited(meter, 60, mode)
    env.reset(seed=0)
    meter.add(15)
    _, _, *ends, info = env.step(3)
    assert (tuple(ends), float(info["duration"]), env.remaining) == (flags, 4.0, 5)


class Twice(gym.Wrapper):
    """Steps what is inside twice, as a wrapper that repeats actions does, and says for how long."""

    def step(self, action: Any) -> Any:
        total, duration = 0.0, 0.0
        for _ in range(2):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total, duration = total + reward, duration + info["duration"]
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, "duration": duration}


@pytest.mark.parametrize("hold", [5, (1, 5, 20)])
def test_the_cheapest_path_is_never_held_through_a_wrapper_that_repeats(meter: ComputeMeter, hold: Any) -> None:
    # 12 steps of 10: the limit is just what the cheapest path costs
    env = ComputeLimit(Twice(options(meter, hold)), 120, meter=meter)
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, terminated, truncated, _ = env.step(env.action_space.n - 1)  # dear, for long
        ended = terminated or truncated
    assert env.unwrapped.steps == HORIZON
    assert env.limit_report()["held_steps"] == 0
    assert meter.totals["act"] == 120
