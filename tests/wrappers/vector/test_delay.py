"""Late actions in a batch: what each row costs decides when its action arrives, and nothing outlives an episode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import ConfigError, InfoKeyError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.vector import ComputeDelayAction, RecordComputeStatistics, SubPolicyAction
from budget_wrappers.wrappers.vector.delay import period_of
from tests.gymnasium_versions import asynchronous, sync
from tests.wrappers.environments import KINDS, SpacesEnv, constant_action
from tests.wrappers.vector.test_traps import DISABLED, NEXT, SAME, make

DEVICE = [(100, 5_000.0), (1_000, 50_000.0)]
"""5 ms for 100 FLOPs and 50 ms for 1,000; 20 ms a period make 0 and 2 periods."""


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def delayed(envs: Any, meter: ComputeMeter, **arguments: Any) -> ComputeDelayAction:
    start = np.full(3, -1.0, np.float32)
    return ComputeDelayAction(envs, DEVICE, **{"period": 0.02, "initial_action": start, "meter": meter, **arguments})


def acted(envs: Any, meter: ComputeMeter, costs: list[list[int]]) -> list[list[float]]:
    """Step with action k/10 in step k and return the delays that were told."""
    told = []
    for number, by_row in enumerate(costs):
        meter.add(sum(by_row), rows=2, by_row=by_row)
        told.append(envs.step(np.full((2, 3), number / 10, np.float32))[4]["delay"].tolist())
    return told


def arrived(envs: Any) -> list[list[float]]:
    return [[round(10 * float(action[0])) / 10 for action in env.actions] for env in envs.env.envs]


def test_each_row_waits_for_its_own_action(meter: ComputeMeter) -> None:
    envs = delayed(make(NEXT), meter)
    envs.reset(seed=0)
    # Row 0: cheap, on time. Row 1: dear, two periods late; its cheap one at step 3 overtakes the one of step 2.
    told = acted(envs, meter, [[100, 1_000], [100, 1_000], [100, 1_000], [100, 100], [100, 100]])
    assert told == [[0, 2], [0, 2], [0, 2], [0, 0], [0, 0]]
    assert arrived(envs) == [[0.0, 0.1, 0.2, 0.3, 0.4], [-1.0, -1.0, 0.0, 0.3, 0.4]]
    assert envs.applied[:, 0].tolist() == [np.float32(0.4)] * 2


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_nothing_outlives_an_episode(mode: Any, meter: ComputeMeter) -> None:
    """Episodes of 2 and 20 steps; both are two periods late, so in the first no action ever arrives."""
    inner = make(mode, ends=(2, 20))
    envs = RecordComputeStatistics(delayed(inner, meter), meter)
    assert envs.reset(seed=0)[1]["delay"].tolist() == [0.0, 0.0]
    applied = []
    for _ in range(9):
        meter.add(2_000, rows=2)
        over = np.logical_or(*envs.step(np.full((2, 3), 0.5, np.float32))[2:4])
        applied += [float(action[0]) for action in inner.envs[0].actions[-1:]]
        if mode is DISABLED and over.any():
            envs.reset(options={"reset_mask": over})
    assert set(applied) == {-1.0}
    assert [float(action[0]) for action in inner.envs[1].actions] == [-1.0, -1.0] + [0.5] * 7


def test_a_masked_reset_drops_what_is_under_way_in_its_rows_only(meter: ComputeMeter) -> None:
    envs = delayed(make(), meter)
    envs.reset(seed=0)
    acted(envs, meter, [[1_000, 1_000]])
    _, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert (infos["delay"].tolist(), infos["_delay"].tolist()) == ([0.0, 0.0], [True, False])
    acted(envs, meter, [[1_000, 1_000]] * 2)
    assert arrived(envs) == [[-1.0, -1.0], [-1.0, -1.0, 0.0]]


def test_charged_before_a_masked_reset_of_others_an_action_is_late_all_the_same(meter: ComputeMeter) -> None:
    envs = delayed(make(), meter)
    envs.reset(seed=0)
    meter.add(2_000, rows=2)
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert acted(envs, meter, [[100, 0]]) == [[0.0, 2.0]]


def test_a_policy_may_reuse_its_buffer(meter: ComputeMeter) -> None:
    envs = delayed(make(NEXT), meter)
    envs.reset(seed=0)
    actions = np.zeros((2, 3), np.float32)
    for number in range(4):
        meter.add(2_000, rows=2)
        actions[:] = number / 10
        envs.step(actions)
    assert arrived(envs)[0] == [-1.0, -1.0, 0.0, 0.1]


@pytest.mark.parametrize("kind", KINDS)
def test_actions_of_every_kind_arrive(kind: str, meter: ComputeMeter) -> None:
    envs = delayed(sync([lambda: SpacesEnv(kind)] * 2, NEXT), meter, initial_action=None)
    envs.reset(seed=0)
    one = constant_action(kind)
    both = {key: np.stack([value] * 2) for key, value in one.items()} if kind == "dict" else one
    both = tuple(np.stack([value] * 2) for value in one) if kind == "tuple" else both
    for _ in range(3):
        meter.add(2_000, rows=2)
        envs.step(both if kind in ("dict", "tuple") else np.stack([one] * 2))
    for env in envs.env.envs:
        assert all(action in env.action_space for action in env.actions)
        np.testing.assert_equal(env.actions[2], one)


class Timed(SpacesEnv):
    """Has a control period."""

    def __init__(self, dt: float = 0.05) -> None:
        super().__init__()
        self.dt = dt


@pytest.mark.parametrize("make_envs", [sync, asynchronous])
def test_the_period_is_the_environments_own(make_envs: Any, meter: ComputeMeter) -> None:
    envs = delayed(make_envs([Timed] * 2, NEXT), meter, period=None)
    assert (envs.period, envs.delay_of(1_000)) == (0.05, 1)
    envs.close()
    envs = make_envs([SpacesEnv] * 2, NEXT)
    with pytest.raises(ConfigError, match="has no dt; expected one control period"):
        period_of(envs)
    envs.reset(seed=0)  # asking has not ended its workers
    envs.close()


def test_two_periods_are_refused(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match=r"dts \[0\.05, 0\.1\]"):
        delayed(sync([Timed, lambda: Timed(0.1)], NEXT), meter, period=None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"period": 0.0}, ConfigError, "seconds above 0"),
        ({"percentile": "p42"}, ConfigError, "p50, p95, p99"),
        ({"initial_action": np.full((2, 3), 0.5)}, SpaceError, "initial_action"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, error: type[Exception], message: str, meter: ComputeMeter) -> None:
    with pytest.raises(error, match=message):
        delayed(make(NEXT), meter, **arguments)


def test_two_of_them_or_one_around_a_chooser_are_refused(meter: ComputeMeter) -> None:
    with pytest.raises(InfoKeyError, match="already"):
        delayed(delayed(make(NEXT), meter), meter)
    with pytest.raises(WrapperOrderError, match="inside of it"):
        delayed(SubPolicyAction(make(NEXT), ["cheap-box"], meter=meter), meter)


def test_an_action_is_needed_for_each_row(meter: ComputeMeter) -> None:
    envs = delayed(make(NEXT), meter)
    envs.reset(seed=0)
    with pytest.raises(SpaceError, match="1 actions; expected 2"):
        envs.step(np.zeros((1, 3), np.float32))


def test_random_actions_on_a_meter_that_nobody_charges_are_on_time(meter: ComputeMeter) -> None:
    envs = delayed(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), meter, initial_action=0)
    envs.reset(seed=0)
    for _ in range(40):
        assert not envs.step(np.array([1, 1]))[4]["delay"].any()
