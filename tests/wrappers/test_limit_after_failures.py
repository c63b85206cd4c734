"""ComputeLimit around an opaque policy when steps fail in a row: the next ``step`` checks before anything runs."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputeLimit, RecordComputeStatistics
from tests.wrappers.environments import SpacesEnv, constant_action

ACTION, COST, LIMIT, HORIZON = constant_action("box"), 100, 250, 12


class BrokenError(RuntimeError):
    """What fails in these tests."""


class Failing(gym.Wrapper):
    """Raises at the calls of ``step`` that are listed, counted from 1, or at random ones, and counts those it makes."""

    def __init__(self, env: gym.Env, *at: int, share: float = 0.0) -> None:
        super().__init__(env)
        self.calls, self._at, self._share, self._random = 0, at, share, np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        self.calls += 1
        if self.calls in self._at or self._random.random() < self._share:
            raise BrokenError("camera timed out")
        return self.env.step(action)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def run(env: gym.Env, meter: ComputeMeter, acts: Any = lambda failures: True, attempts: int = 12) -> tuple[Any, int]:
    """Act and step until the episode ends; return its last transition and how many steps have raised."""
    failures = 0
    for _ in range(attempts):
        if acts(failures):
            meter.add(COST)
        try:
            transition = env.step(ACTION)
        except BrokenError:
            failures += 1
            continue
        if transition[2] or transition[3]:
            break
    return transition, failures


@pytest.mark.parametrize(
    ("mode", "flags"), [("truncate", (False, True)), ("terminate", (True, False)), ("hold", (False, True))]
)
def test_failures_in_a_row_end_at_the_next_step_which_runs_nothing(meter: ComputeMeter, mode: Any, flags: Any) -> None:
    # two steps of 100, and a third of 100 that raises: 300 of 250. The caller acts once more, and that step is the end
    failing = Failing(SpacesEnv(), 3, 4, 5, 6)
    env = ComputeLimit(failing, LIMIT, mode, meter=meter, horizon=HORIZON)
    env.reset(seed=0)
    (observation, reward, *ends, info), failures = run(env, meter)
    assert (meter.totals["act"], failing.calls, failures) == (400, 3, 1)
    assert (tuple(ends), reward, info["duration"]) == (flags, 0.0, 0.0)
    assert np.array_equal(observation, env._observation)
    assert (env.overshoot, env.remaining, env.episode.steps) == (150, 0, 2)


def test_what_acts_before_the_step_after_a_failure_is_checked_too(meter: ComputeMeter) -> None:
    # 100, and 100 in a step that raises; the next action makes 300 of 250
    failing = Failing(SpacesEnv(), 2)
    env = ComputeLimit(failing, LIMIT, "truncate", meter=meter)
    env.reset(seed=0)
    assert run(env, meter)[0][3] is True
    assert (failing.calls, env.overshoot) == (2, 50)


def test_a_failure_with_something_left_ends_nothing(meter: ComputeMeter) -> None:
    # 100 that raise, and 100: 200 of 250; the third step exhausts the limit
    failing = Failing(SpacesEnv(), 1)
    env = ComputeLimit(failing, LIMIT, "truncate", meter=meter)
    env.reset(seed=0)
    assert run(env, meter)[1] == 1
    assert (failing.calls, env.episode.steps, env.overshoot) == (3, 2, 50)


def test_hold_goes_on_where_the_policy_has_not_acted_with_nothing_left(meter: ComputeMeter) -> None:
    # 300 of 250 in the step that raises; its action is handed in again, for nothing: steps 3 … 12 are made in one
    failing = Failing(SpacesEnv(), 3, 5)
    env = ComputeLimit(failing, LIMIT, "hold", meter=meter, horizon=HORIZON)
    env.reset(seed=0)
    transition, failures = run(env, meter, acts=lambda failures: not failures)
    assert (transition[3], failures, env.unwrapped.steps) == (True, 2, HORIZON)
    assert (meter.totals["act"], env.overshoot) == (300, 50)


def test_a_recorder_on_either_side_has_the_cost_of_the_failed_steps(meter: ComputeMeter) -> None:
    # steps that are handed out cost 100, 100, and the end 100 + 100
    for outside in (True, False):
        inner: gym.Env = Failing(SpacesEnv(), 3, 4)
        inner = inner if outside else RecordComputeStatistics(inner, meter)
        env: gym.Env = ComputeLimit(inner, LIMIT, "truncate", meter=meter)
        env = RecordComputeStatistics(env, meter) if outside else env
        env.reset(seed=0)
        info = run(env, meter)[0][4]
        assert (info["cost"], info["compute"]["flops"], info["compute"]["overshoot"]) == (200.0, 400.0, 150.0)


@pytest.mark.parametrize("mode", ["truncate", "terminate", "hold"])
def test_random_failures_pass_the_limit_by_one_step_and_one_action_at_most(meter: ComputeMeter, mode: Any) -> None:
    """A fifth of 500 steps raises; whatever an episode has executed is what the limit says of it."""
    env = ComputeLimit(Failing(SpacesEnv(), share=0.2), LIMIT, mode, meter=meter, horizon=HORIZON)
    env.reset(seed=0)
    costs, executed, overshoots = np.random.default_rng(1).integers(1, COST + 1, 500), 0, []
    for cost in costs.tolist():
        meter.add(cost)
        executed += cost
        try:
            transition = env.step(ACTION)
        except BrokenError:
            assert executed <= LIMIT + 2 * COST
            continue
        if transition[2] or transition[3]:
            assert env.overshoot == max(executed - LIMIT, 0)
            overshoots.append(env.overshoot)
            executed = 0
            env.reset()
    assert len(overshoots) > 50
    assert max(overshoots) < 2 * COST
