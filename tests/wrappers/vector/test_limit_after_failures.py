"""The vector ComputeLimit when steps fail in a row: the next ``step`` runs nothing for exhausted environments."""

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import AutoresetMode, asynchronous, needs_masks, sync
from tests.wrappers.environments import SpacesEnv

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
ACTIONS, LIMIT = np.zeros((2, 3), np.float32), 250
pytestmark = needs_masks


class BrokenError(RuntimeError):
    """What fails in these tests."""


class Failing(SpacesEnv):
    """Its steps raise where ``fails`` says so of their number, from 1; ``calls`` counts them."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls, self._fails = 0, fails

    def step(self, action: Any) -> Any:
        self.calls += 1
        if self._fails(self.calls):
            raise BrokenError("camera timed out")
        return super().step(action)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def make(mode: AutoresetMode, fails: Callable[[int], bool]) -> gym.vector.VectorEnv:
    """Return two environments, of which the second fails."""
    return sync([SpacesEnv, lambda: Failing(fails)], mode)


def chosen(envs: gym.vector.VectorEnv, meter: ComputeMeter) -> gym.vector.VectorEnv:
    """Return ``envs`` with sub-policies of 10 and 100 FLOPs."""
    policies = [FunctionPolicy(lambda obs: np.zeros(3, np.float32), cost, f"of {cost}") for cost in (10, 100)]
    return vector.SubPolicyAction(envs, policies, meter=meter)


def attempt(envs: gym.vector.VectorEnv, actions: Any, times: int) -> list[Any]:
    """Step so often; return the transitions, ``None`` for a step that has raised."""
    transitions = []
    for _ in range(times):
        try:
            transitions.append(envs.step(actions))
        except BrokenError:
            transitions.append(None)
    return transitions


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
@pytest.mark.parametrize("kind", ["truncate", "terminate"])
def test_an_opaque_policy_acts_once_after_the_failure_and_nothing_runs(
    meter: ComputeMeter, mode: AutoresetMode, kind: Any
) -> None:
    # two steps of 100 and a third that raises: 300 of 250; one more action makes 400 in each environment
    envs = vector.ComputeLimit(make(mode, lambda call: call >= 3), LIMIT, kind, meter)
    last, _ = envs.reset(seed=0)
    first, second = envs.unwrapped.envs
    for _ in range(4):
        meter.add(200, rows=2)
        transition = attempt(envs, ACTIONS, 1)[0]
        if transition is not None:
            seen, last = last, transition[0]
    assert transition is not None, "the fourth step raises, so it has stepped the environments"
    observations, rewards, terminations, truncations, infos = transition
    assert (terminations if kind == "terminate" else truncations).tolist() == [True, True]
    assert (rewards.tolist(), second.calls, meter.totals["act"]) == ([0.0, 0.0], 3, 800)
    assert envs.overshoot.tolist() == [150, 150]
    final = np.stack(list(infos["final_obs"])) if mode is SAME else observations
    assert np.array_equal(final, seen)
    assert first.steps == (0 if mode is SAME else 3)


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_no_sub_policy_runs_for_exhausted_rows(meter: ComputeMeter, mode: AutoresetMode) -> None:
    # 300 of 250 in the step that raises; the step after that runs neither sub-policies nor environments
    envs = vector.ComputeLimit(chosen(make(mode, lambda call: 3 <= call <= 6), meter), LIMIT, meter=meter)
    envs.reset(seed=0)
    transitions = attempt(envs, [1, 1], 4)
    assert [transition is None for transition in transitions] == [False, False, True, False]
    _, rewards, terminations, truncations, infos = transitions[-1]
    told = infos["final_info"] if mode is SAME else infos
    assert (truncations.tolist(), terminations.tolist(), rewards.tolist()) == ([True] * 2, [False] * 2, [0.0] * 2)
    assert (told["option"].tolist(), told["duration"].tolist()) == ([-1, -1], [0.0, 0.0])
    assert (meter.totals["act"], envs.unwrapped.envs[1].calls, envs.overshoot.tolist()) == (600, 3, [50, 50])


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_rows_with_something_left_go_on(meter: ComputeMeter, mode: AutoresetMode) -> None:
    """The second environment, of 10 a step, raises four times; the first one, of 100, is exhausted from then on."""
    envs = vector.ComputeLimit(chosen(make(mode, lambda call: 3 <= call <= 6), meter), LIMIT, meter=meter)
    envs = vector.RecordComputeStatistics(envs, meter)
    envs.reset(seed=0)
    transitions = attempt(envs, [1, 0], 7)
    assert [transition is None for transition in transitions] == [False, False, True, True, True, True, False]
    _, rewards, _, truncations, infos = transitions[-1]
    assert (truncations.tolist(), rewards.tolist()) == ([True, False], [0.0, 3.0])
    account = (infos["final_info"] if mode is SAME else infos)["compute"]
    # 3 · 100 in 2 steps; the second environment was acted for in each of 7 steps
    assert (account["flops"][0], account["steps"][0], account["overshoot"][0]) == (300.0, 2.0, 50.0)
    assert meter.totals["act"] == 300 + 7 * 10
    if mode is DISABLED:
        envs.reset(options={"reset_mask": np.array([True, False])})
    assert attempt(envs, [1, 0], 1)[0][1].tolist() == [0.0 if mode is NEXT else 1.0, 4.0]


def raising_at(*calls: int) -> Callable[[gym.vector.VectorEnv], gym.vector.VectorEnv]:
    """Return a wrapper whose steps raise, once what it wraps has stepped, at the calls listed, counted from 1."""

    class Raising(gym.vector.VectorWrapper):
        count = 0

        def step(self, actions: Any) -> Any:
            transition = self.env.step(actions)
            self.count += 1
            if self.count in calls:
                raise BrokenError("no disk")
            return transition

    return Raising


def test_workers_of_exhausted_rows_are_passed_by(meter: ComputeMeter) -> None:
    # 3 · 100 of 250 in the first row, with the step that raises; rewards are the numbers of the environments' steps
    envs = raising_at(3)(asynchronous([SpacesEnv] * 2, NEXT))
    envs = vector.ComputeLimit(chosen(envs, meter), LIMIT, meter=meter)
    try:
        envs.reset(seed=0)
        transitions = attempt(envs, [1, 0], 6)
    finally:
        envs.close()
    assert transitions.pop(2) is None
    assert [one[1].tolist() for one in transitions] == [[1, 1], [2, 2], [0, 4], [0, 5], [1, 6]]
    assert [one[3].tolist() for one in transitions] == [[False] * 2] * 2 + [[True, False]] + [[False] * 2] * 2
    assert meter.totals["act"] == 4 * 100 + 6 * 10


def test_environments_that_cannot_pass_a_row_by_end_it_in_the_step(meter: ComputeMeter) -> None:
    """A vector environment of its own kind is stepped with the row's last action; no sub-policy runs for the row."""
    envs = Whole()
    policies = [FunctionPolicy(lambda obs: 1, cost, f"of {cost}") for cost in (10, 100)]
    envs = vector.ComputeLimit(vector.SubPolicyAction(envs, policies, meter=meter), LIMIT, meter=meter)
    envs.reset()
    transitions = attempt(envs, [1, 0], 4)
    assert transitions.pop(2) is None
    assert [one[3].tolist() for one in transitions] == [[False] * 2] * 2 + [[True, False]]
    assert (meter.totals["act"], envs.overshoot.tolist()) == (3 * 100 + 4 * 10, [50, 0])


class Whole(gym.vector.VectorEnv):
    """Two environments made as one, which the caller resets; its third step raises."""

    metadata: ClassVar = {"autoreset_mode": DISABLED}
    num_envs, calls = 2, 0
    single_observation_space, single_action_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32), gym.spaces.Discrete(2)
    observation_space, action_space = gym.spaces.Box(0.0, 1.0, (2, 1), np.float32), gym.spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise BrokenError("camera timed out")
        return np.zeros((2, 1), np.float32), np.ones(2), np.zeros(2, bool), np.zeros(2, bool), {}


def test_a_row_that_never_acted_can_end(meter: ComputeMeter) -> None:
    """The selector spends the first row's limit, and the sub-policy raises before it acts for anyone."""

    def broken(observation: Any) -> Any:
        raise BrokenError("no camera")

    policies = [FunctionPolicy(broken, 10, "broken"), FunctionPolicy(lambda obs: np.zeros(3, np.float32), 20, "sound")]
    envs = vector.SubPolicyAction(sync([SpacesEnv] * 2, NEXT), policies, meter=meter)
    envs = vector.ComputeLimit(envs, LIMIT, meter=meter)
    envs.reset(seed=0)
    meter.add(400, "selector", 2, by_row=[400, 0])
    assert attempt(envs, [0, 0], 1) == [None]
    assert envs.step([1, 1])[3].tolist() == [True, False]
    assert (envs.unwrapped.envs[0].steps, envs.overshoot.tolist()) == (0, [160, 0])


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
@pytest.mark.parametrize("opaque", [True, False])
def test_random_failures_pass_no_limit_by_more_than_promised(
    meter: ComputeMeter, mode: AutoresetMode, opaque: bool
) -> None:
    """A fifth of 500 steps raises: what ran in this process up to each end is what the limit says of it."""
    random = np.random.default_rng(0)
    envs = make(mode, lambda call: random.random() < 0.2)
    envs = vector.ComputeLimit(envs if opaque else chosen(envs, meter), LIMIT, meter=meter)
    envs.reset(seed=0)
    executed, resetting, overshoots = 0, False, []
    for _ in range(500):
        before = meter.totals["act"]
        if opaque:
            meter.add(200, rows=2)
        transition = attempt(envs, ACTIONS if opaque else [1, 1], 1)[0]
        executed += 0 if resetting else (meter.totals["act"] - before) // 2
        assert executed <= LIMIT + 100 * (1 + opaque)
        if transition is None:
            continue
        resetting = False
        if transition[3].any():
            assert transition[3].tolist() == [True, True]
            assert envs.overshoot.tolist() == [executed - LIMIT] * 2
            overshoots.append(executed - LIMIT)
            executed, resetting = 0, mode is NEXT
            if mode is DISABLED:
                envs.reset()
    assert len(overshoots) > 50
    assert max(overshoots) == (150 if opaque else 50)
