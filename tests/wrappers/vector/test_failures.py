"""Limits and choices of a batch when something inside raises, resets or acts out of turn."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorWrapper

import budget_wrappers.wrappers as scalar
from budget_wrappers.errors import WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import AutoresetMode, asynchronous, needs_masks, sync
from tests.wrappers.environments import SpacesEnv
from tests.wrappers.vector.episodes import RandomLengthEnv, both_stories

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
ACTIONS = np.zeros((2, 3), np.float32)


class BrokenError(RuntimeError):
    """What fails in these tests."""


def failing_at(*calls: int) -> Callable[[], None]:
    """Return a function that raises at the calls that are listed, counted from 1."""
    count = iter(range(1, 10**6))

    def tick() -> None:
        if next(count) in calls:
            raise BrokenError("camera timed out")

    return tick


class Around(VectorWrapper):
    """Calls ``before`` with what it wraps ahead of each step, and ``after`` behind each reset."""

    def __init__(self, env: Any, before: Any = lambda env: None, after: Any = lambda env: None) -> None:
        super().__init__(env)
        self._before, self._after = before, after

    def step(self, actions: Any) -> Any:
        self._before(self.env)
        return self.env.step(actions)

    def reset(self, **arguments: Any) -> Any:
        answer = self.env.reset(**arguments)
        self._after(self.env)
        return answer


class FlakyReset(SpacesEnv):
    """Its resets raise where ``tick`` does."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__()
        self._tick = tick

    def reset(self, **arguments: Any) -> Any:
        self._tick()
        return super().reset(**arguments)


class Drawing(gym.Env):
    """Each step draws from the generator that the next reset draws from, too."""

    observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def _observe(self) -> np.ndarray:
        return self.np_random.random(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        return self._observe(), float(self.np_random.normal()), bool(self.np_random.random() < 0.05), False, {}


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, tick: Callable[[], None], batched: bool = False) -> Any:
    """Return two environments and a recorder around sub-policies of 10 and 40 FLOPs; the dear one ticks."""

    class Dear:
        name, flops = "dear", 40

        def __init__(self) -> None:
            self.batched = batched

        def __call__(self, observation: Any) -> Any:
            tick()
            return np.zeros(3, np.float32)

        def batch(self, observations: Any) -> Any:
            tick()
            return np.zeros((len(observations), 3), np.float32)

    cheap = FunctionPolicy(lambda obs: np.zeros(3, np.float32), 10, "cheap")
    envs = vector.SubPolicyAction(sync([lambda: SpacesEnv(end_at=3)] * 2, NEXT), [cheap, Dear()], meter=meter)
    envs = vector.RecordComputeStatistics(envs, meter)
    envs.reset(seed=0)
    return envs


@pytest.mark.parametrize(("batched", "ran"), [(False, 40), (True, 80)])
def test_only_the_rows_that_a_failed_sub_policy_was_called_for_have_cost(
    meter: ComputeMeter, batched: bool, ran: int
) -> None:
    """One after the other the first call raises, and there is no second; as a batch both rows have run."""
    envs = options(meter, failing_at(1), batched)
    with pytest.raises(BrokenError):
        envs.step([1, 1])
    assert meter.totals["act"] == ran
    assert envs.step([1, 1])[4]["cost"].tolist() == [80.0, 40.0 + (ran - 40)]


def test_the_flops_of_a_failed_call_belong_to_its_sub_policy(meter: ComputeMeter) -> None:
    # three steps of 40 and one call of 40 that raised, of the first row only
    envs = options(meter, failing_at(3))
    envs.step([1, 1])
    with pytest.raises(BrokenError):
        envs.step([1, 1])
    envs.step([1, 1])
    account = envs.step([1, 1])[4]["compute"]
    assert account["flops"].tolist() == [160.0, 120.0]
    assert account["share_flops"]["dear"].tolist() == [1.0, 1.0]
    assert account["share_flops"]["selector"].tolist() == [0.0, 0.0]
    envs.step([0, 0])
    for _ in range(3):  # an episode without failures
        account = envs.step([0, 0])[4].get("compute")
    assert account["share_flops"]["cheap"].tolist() == [1.0, 1.0]


@needs_masks
def test_a_failed_step_is_in_what_remains(meter: ComputeMeter) -> None:
    tick = failing_at(2)
    envs = Around(sync([SpacesEnv] * 2, NEXT), lambda env: tick())
    envs = vector.ComputeLimit(envs, 100, meter=meter)
    envs.reset(seed=0)
    meter.add(30, rows=2, by_row=[10, 20])
    envs.step(ACTIONS)
    meter.add(120, rows=2, by_row=[30, 90])
    with pytest.raises(BrokenError):
        envs.step(ACTIONS)
    assert (envs.remaining.tolist(), envs.overshoot.tolist()) == ([60, 0], [0, 10])
    assert envs.step(ACTIONS)[3].tolist() == [False, True]
    assert (envs.remaining.tolist(), envs.overshoot.tolist()) == ([60, 0], [0, 10])


@needs_masks
@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_reset_that_fails_stays_due(meter: ComputeMeter, mode: AutoresetMode) -> None:
    """The limit ends the first row; its reset, the second of this environment, raises, and is made at the next step."""
    tick = failing_at(2)
    envs = vector.ComputeLimit(sync([lambda: FlakyReset(tick), SpacesEnv], mode), 100, meter=meter)
    envs.reset(seed=0)
    first = envs.unwrapped.envs[0]
    raised = 0
    for _ in range(3):
        try:
            meter.add(100 * (not first.steps), rows=2, by_row=[100 * (not first.steps), 0])
            envs.step(ACTIONS)
        except BrokenError:
            raised += 1
            assert first.steps > 0
    assert (raised, len(first.resets), first.steps) == (1, 2, 0 if mode is NEXT else 2)


@needs_masks
def test_acting_within_a_reset_is_refused(meter: ComputeMeter) -> None:
    envs = Around(sync([SpacesEnv] * 2, NEXT), after=lambda env: meter.add(1000, rows=2))
    with pytest.raises(WrapperOrderError, match="1000 FLOPs were charged to meter 'tests' within the reset"):
        vector.ComputeLimit(envs, 100, meter=meter).reset(seed=0)


@needs_masks
@pytest.mark.parametrize("mask", [None, np.array([True, False])])
def test_a_reset_within_a_step_is_refused(meter: ComputeMeter, mask: Any) -> None:
    """A recorder inside begins its accounts anew, which the limit reads."""
    turn = iter(range(100))

    def reset(env: Any) -> None:
        if next(turn) == 1:
            env.reset(options=None if mask is None else {"reset_mask": mask})

    envs = Around(vector.RecordComputeStatistics(sync([SpacesEnv] * 2, NEXT), meter), reset)
    envs = vector.ComputeLimit(envs, 100, meter=meter)
    envs.reset(seed=0)
    meter.add(120, rows=2)
    envs.step(ACTIONS)
    with pytest.raises(WrapperOrderError, match="within its step"):
        envs.step(ACTIONS)


@needs_masks
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("environment", [Drawing, RandomLengthEnv])
def test_a_limit_leaves_the_random_numbers_of_its_environments_alone(mode: str, environment: Any) -> None:
    """Later resets are those of the environment run singly, in each mode, to the digit."""

    def limit(home: Any) -> Any:
        return lambda env, meter: home.ComputeLimit(env, 2 * 10**9, "truncate", meter=meter)

    batch, singles, _ = both_stories(limit(scalar), limit(vector), environment, sync, mode, n=2, steps=40)
    assert sum(event[0] == "reset" for event in batch[0]) > 3
    assert repr(batch) == repr(singles)


@needs_masks
@pytest.mark.parametrize("shared_memory", [True, False])
def test_workers_of_a_limit_draw_as_if_run_singly(shared_memory: bool) -> None:
    def limit(home: Any) -> Any:
        return lambda env, meter: home.ComputeLimit(env, 2 * 10**9, "truncate", meter=meter)

    def make(functions: Any, mode: str) -> Any:
        return asynchronous(functions, mode, shared_memory=shared_memory)

    batch, singles, _ = both_stories(limit(scalar), limit(vector), Drawing, make, "NextStep", n=2, steps=25)
    assert sum(event[0] == "reset" for event in batch[0]) > 3
    assert repr(batch) == repr(singles)
