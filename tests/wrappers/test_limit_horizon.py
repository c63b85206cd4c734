"""ComputeLimit takes the least of everything that can end an episode, in primitive steps."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, SubPolicyAction
from tests.gymnasium_versions import RepeatAction
from tests.wrappers.environments import SpacesEnv, constant_action

ACTION = constant_action("box")
Around = Callable[[gym.Env], gym.Env]


class Skip(gym.Wrapper):
    """A frame skip that no library knows of."""

    def __init__(self, env: gym.Env, frames: int) -> None:
        super().__init__(env)
        self._frames = frames

    def step(self, action: Any) -> Any:
        for _ in range(self._frames):
            transition = self.env.step(action)
            if transition[2] or transition[3]:
                break
        return transition


class Registered(SpacesEnv):
    """An environment that ends after 20 steps by itself and says so in its spec."""

    def __init__(self) -> None:
        super().__init__(end_at=20)
        self.spec = EnvSpec("registered-v0", max_episode_steps=20)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def spent(
    meter: ComputeMeter, env: gym.Env, limit: int, around: Around = lambda env: env, hold: Any = 1, action: int = 1,
    horizon: int | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Return the FLOPs and the primitive steps of an episode of sub-policies of 1 and 10 FLOPs; the dear is asked for.

    Args:
        meter: charged.
        env: that the sub-policies act in.
        limit: of the episode.
        around: what stands between the sub-policies and the limit.
        hold: durations of a choice.
        action: that is asked for each time.
        horizon: of the limit.
    """
    policies = [FunctionPolicy(lambda obs: ACTION, 1, "cheap"), FunctionPolicy(lambda obs: ACTION, 10, "dear")]
    chooser = SubPolicyAction(env, policies, hold=hold, meter=meter)
    limited = ComputeLimit(around(chooser), limit, meter=meter, horizon=horizon)
    limited.reset(seed=0)
    while not any(limited.step(action)[2:4]):
        pass
    return limit - limited.remaining, sum(chooser.choice_counts)


@pytest.mark.parametrize(
    "env",
    [
        lambda: TimeLimit(TimeLimit(SpacesEnv(), 20), 1000),
        lambda: TimeLimit(TimeLimit(SpacesEnv(), 1000), 20),
        lambda: TimeLimit(TimeLimit(TimeLimit(SpacesEnv(), 50), 20), 30),
        lambda: TimeLimit(Registered(), 1000),
        Registered,
    ],
    ids=["longer outside", "shorter outside", "three", "its spec", "its spec alone"],
)
def test_of_several_time_limits_the_least_counts(meter: ComputeMeter, env: Callable[[], gym.Env]) -> None:
    # 110 = 10 · 10 + 10 · 1: a path to a later end would have kept back more
    assert spent(meter, env(), 110) == (110, 20)


def test_a_longer_horizon_of_its_own_keeps_nothing_for_steps_that_never_come(meter: ComputeMeter) -> None:
    assert spent(meter, TimeLimit(SpacesEnv(), 20), 110, horizon=1000) == (110, 20)


def test_a_time_limit_around_the_chooser_counts_where_it_is_the_least(meter: ComputeMeter) -> None:
    # 5 decisions of 4 steps are 20, of which 10 dear and 10 cheap are 110: two dear options 80, 12 cheap 12, 18 left.
    # Of the third, 4 · 10 = 40 > 110 − 80 − 8: cheap
    env = TimeLimit(SpacesEnv(), 1000)
    assert spent(meter, env, 110, lambda chooser: TimeLimit(chooser, 5), hold=4) == (2 * 40 + 3 * 4, 20)


def test_decisions_that_were_short_bring_the_end_nearer(meter: ComputeMeter) -> None:
    # 4 decisions, of 1 or 5 steps: after three short dear ones (30) the last is left, for which 1 or 5 steps are kept.
    # 1st: 10 <= 45 − 15, 2nd: 10 <= 35 − 10, 3rd: 10 <= 25 − 5, 4th: 10 <= 15 − 0
    assert spent(
        meter, SpacesEnv(), 45, lambda chooser: TimeLimit(chooser, 4), hold=(1, 5), action=1
    ) == (40, 4)  # fmt: skip


@pytest.mark.parametrize("skip", [RepeatAction, Skip], ids=["RepeatAction", "unknown"])
def test_frames_that_are_skipped_inside_are_no_primitive_steps(meter: ComputeMeter, skip: Any) -> None:
    # 80 frames of 4 a step are 20 steps. An unknown skip is found out by the first step, which is cheap: 9 dear follow
    flops, steps = spent(meter, skip(TimeLimit(SpacesEnv(), 80), 4), 110)
    assert steps == 20
    assert flops == (110 if skip is RepeatAction else 1 + 10 * 10 + 9)


@pytest.mark.skipif(not hasattr(gym.wrappers, "RepeatAction"), reason="Gymnasium's own, from 1.3 on")
def test_repeated_decisions_count_each(meter: ComputeMeter) -> None:
    # 5 steps outside make two decisions each, of 2 primitive steps: 20; 5 of the 10 decisions may be dear
    flops, steps = spent(
        meter, SpacesEnv(), 110, lambda chooser: TimeLimit(RepeatAction(chooser, 2), 5), hold=2
    )  # fmt: skip
    assert (flops, steps) == (110, 20)


def test_an_opaque_hold_ends_with_the_first_time_limit(meter: ComputeMeter) -> None:
    env = ComputeLimit(TimeLimit(TimeLimit(SpacesEnv(), 20), 1000), 50, "hold", meter=meter)
    assert env.env.env.env.steps == 0
    env.reset(seed=0)
    meter.add(50)
    assert env.step(ACTION)[3] is True
    assert (env.unwrapped.steps, env.limit_report()["held_steps"]) == (20, 19.0)


def test_steps_of_repeated_decisions_reach_the_horizon(meter: ComputeMeter) -> None:
    """A wrapper between makes two decisions of two steps; both were made, whatever its last info says."""
    flops, steps = spent(meter, SpacesEnv(), 10**6, lambda chooser: RepeatAction(chooser, 2), hold=2, horizon=8)
    assert (flops, steps) == (80, 8)
