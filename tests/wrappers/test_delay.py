"""ComputeDelayAction: what an action costs decides when it arrives."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_wrappers.errors import CheckpointError, ConfigError, InfoKeyError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter, profile
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeDelayAction, RecordComputeStatistics, SubPolicyAction
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import SpacesEnv, make

DEVICE = [[100, 5_000.0], [1_000, 50_000.0]]
"""5 ms for 100 FLOPs and 50 ms for 1,000; 20 ms a period make 0 and 2 periods."""

MEASURED = profile(FunctionPolicy(lambda obs: 0, flops=64, name="rule"), 0, samples=20, energy_seconds=0.01)
SPREAD = replace(MEASURED, latency=replace(MEASURED.latency, p50_us=1_000.0, p95_us=30_000.0, p99_us=90_000.0))


class TestContract(WrapperContract):
    wrapper = ComputeDelayAction
    variants: ClassVar = {
        "profile": ({"profile": DEVICE}, {"profile": [[64, 90_000.0]]}),
        "period": ({"period": 0.02}, {"period": 0.001}),
        "initial_action": (
            {"profile": [[64, 90_000.0]]},
            {"profile": [[64, 90_000.0]], "initial_action": [0.5, 0.5, 0.5]},
        ),
        "percentile": ({"profile": [SPREAD]}, {"profile": [SPREAD], "percentile": "p99"}),
        "meter": ({"profile": [[64, 90_000.0]]}, {"profile": [[64, 90_000.0]], "meter": "tests.another"}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"profile": DEVICE, "period": 0.02}

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return [super().visible(env), [np.asarray(action).tolist() for action in env.unwrapped.actions]]


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def acted(costs: list[int], meter: ComputeMeter, **settings: Any) -> list[float]:
    """Return which action acted in each step; the action of step k is k/100, and nothing is −1."""
    arguments = {"profile": DEVICE, "period": 0.02, "initial_action": np.full(3, -1.0, np.float32), **settings}
    env = ComputeDelayAction(SpacesEnv("box"), meter=meter, **arguments)
    env.reset(seed=0)
    for number, cost in enumerate(costs):
        meter.add(cost)
        env.step(np.full(3, number / 100, dtype=np.float32))
    return [round(100 * float(action[0])) if action[0] >= 0 else -1 for action in env.unwrapped.actions]


def test_cheap_actions_are_on_time_and_dear_ones_two_periods_late(meter: ComputeMeter) -> None:
    assert acted([100] * 4, meter) == [0, 1, 2, 3]
    assert acted([1_000] * 5, meter) == [-1, -1, 0, 1, 2]


def test_an_action_that_arrives_after_a_newer_one_is_dropped(meter: ComputeMeter) -> None:
    # Step 0 is dear and would arrive at 2; step 1 is cheap and acts at once; 2 is dear, arrives at 4.
    assert acted([1_000, 100, 1_000, 1_000, 1_000, 100], meter) == [-1, 1, 1, 1, 2, 5]


def test_latency_between_two_profiles_is_interpolated(meter: ComputeMeter) -> None:
    env = ComputeDelayAction(make(), DEVICE, period=0.02, meter=meter)
    # 5 + 45 · (f − 100)/900 milliseconds: 19.9 for 398 FLOPs, 20 for 400, 40 for 800
    assert [env.delay_of(flops) for flops in (0, 1, 100, 398, 400, 799, 800, 1_000, 10**9)] == [
        0,
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
    ]


def test_random_actions_are_on_time(meter: ComputeMeter) -> None:
    assert acted([0, 1_000, 0], meter, profile=[[1, 90_000.0]]) == [0, 0, 2]


@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=30))
def test_what_acts_is_the_newest_that_has_arrived(costs: list[int]) -> None:
    meter = ComputeMeter("tests")
    env = ComputeDelayAction(make(), DEVICE, period=0.007, meter=meter)
    arrives = [step + env.delay_of(cost) for step, cost in enumerate(costs)]
    expected = [max((k for k in range(step + 1) if arrives[k] <= step), default=-1) for step in range(len(costs))]
    assert acted(costs, meter, period=0.007) == expected


def test_nothing_is_under_way_after_a_reset(meter: ComputeMeter) -> None:
    env = ComputeDelayAction(make(), DEVICE, period=0.02, meter=meter)
    for _ in range(2):
        _, info = env.reset(seed=0)
        assert info["delay"] == 0
        for _ in range(2):
            meter.add(1_000)
            *_, info = env.step(np.ones(3, dtype=np.float32))
            assert info["delay"] == 2
        assert all((action == 0).all() for action in env.unwrapped.actions)


@pytest.mark.parametrize("recorder_inside", [True, False])
def test_a_recorder_inside_or_outside_counts_every_flop(meter: ComputeMeter, recorder_inside: bool) -> None:
    env: gym.Env = make()
    if recorder_inside:
        env = ComputeDelayAction(RecordComputeStatistics(env, meter), DEVICE, period=0.02, meter=meter)
    else:
        env = RecordComputeStatistics(ComputeDelayAction(env, DEVICE, period=0.02, meter=meter), meter)
    env.reset(seed=0)
    costs = []
    for cost in (100, 1_000, 7, 0, 3):
        meter.add(cost)
        costs.append(env.step(env.action_space.sample())[4]["cost"])
    assert costs == [100, 1_000, 7, 0, 3]


def test_the_choice_of_a_master_decides_when_the_action_arrives(meter: ComputeMeter) -> None:
    quick = FunctionPolicy(lambda obs: np.full(3, 0.1, np.float32), flops=100, name="quick")
    slow = FunctionPolicy(lambda obs: np.full(3, 0.9, np.float32), flops=1_000, name="slow")
    inner = ComputeDelayAction(make(), DEVICE, period=0.02, meter=meter)
    env = RecordComputeStatistics(SubPolicyAction(inner, [quick, slow], hold=3, meter=meter), meter)
    env.reset(seed=0)
    *_, info = env.step(1)
    assert [round(float(action[0]), 1) for action in inner.unwrapped.actions] == [0.0, 0.0, 0.9]
    assert info["cost"] == 3_000
    env.step(0)
    assert [round(float(action[0]), 1) for action in inner.unwrapped.actions[3:]] == [0.1, 0.1, 0.1]


def test_a_saved_profile_is_read_at_its_percentile(tmp_path: Path, meter: ComputeMeter) -> None:
    card = profile(FunctionPolicy(lambda obs: 0, flops=10, name="rule"), 0, samples=50, energy_seconds=0.01)
    card.save(tmp_path / "card.json")
    for percentile in ("p50", "p99"):
        seconds = 1e-6 * getattr(card.latency, f"{percentile}_us")
        for device in (tmp_path / "card.json", str(tmp_path / "card.json"), [card]):
            env = ComputeDelayAction(make(), device, period=seconds / 3.5, percentile=percentile, meter=meter)
            assert env.delay_of(10) == 3
    remade = gym.make(gym.envs.registration.EnvSpec.from_json(ComputeDelayAction(make(), [card], 1e-9).spec.to_json()))
    assert remade.delay_of(10) > 0  # the spec holds numbers, no file


def test_the_period_is_the_environment_s_own(meter: ComputeMeter) -> None:
    env = gym.make("HalfCheetah-v5")
    assert ComputeDelayAction(env, DEVICE, meter=meter).period == pytest.approx(env.unwrapped.dt) == 0.05
    with pytest.raises(ConfigError, match="has no dt"):
        ComputeDelayAction(make(), DEVICE, meter=meter)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": []}, ConfigError, "at least one"),
        ({"profile": [[1, -1.0]]}, ConfigError, "0 or more"),
        ({"profile": [[1, 2.0], [1, 3.0]]}, ConfigError, "two latencies"),
        ({"profile": [3]}, ConfigError, "FLOPs and microseconds"),
        ({"profile": "nowhere.json"}, CheckpointError, "nowhere.json"),
        ({"period": 0.0}, ConfigError, "seconds above 0"),
        ({"percentile": "p42"}, ConfigError, "p50, p95, p99"),
        ({"initial_action": [7.0, 0.0, 0.0]}, SpaceError, "initial_action"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ComputeDelayAction(make(), **{"profile": DEVICE, "period": 0.02, **arguments})


def test_two_of_them_or_one_around_a_chooser_are_refused(meter: ComputeMeter) -> None:
    inner = ComputeDelayAction(make(), DEVICE, period=0.02, meter=meter)
    with pytest.raises(InfoKeyError, match="already"):
        ComputeDelayAction(inner, DEVICE, period=0.02, meter=meter)
    with pytest.raises(WrapperOrderError, match="inside"):
        ComputeDelayAction(SubPolicyAction(make(), ["cheap-box", "dear-box"], meter=meter), DEVICE, 0.02, meter=meter)


def test_a_policy_may_reuse_its_buffer(meter: ComputeMeter) -> None:
    env = ComputeDelayAction(SpacesEnv("box"), DEVICE, period=0.02, meter=meter)
    env.reset(seed=0)
    action = np.zeros(3, dtype=np.float32)
    for number in range(5):
        meter.add(1_000)
        action[:] = number / 10
        env.step(action)
    assert [round(float(one[0]), 1) for one in env.unwrapped.actions] == [0.0, 0.0, 0.0, 0.1, 0.2]


def test_repetitions_outside_do_not_overtake_the_action(meter: ComputeMeter) -> None:
    env = ComputeDelayAction(SpacesEnv("box"), DEVICE, period=0.01, meter=meter)  # 50 ms are five periods
    env.reset(seed=0)
    for number in (1, 2):
        meter.add(1_000)
        for _ in range(4):
            *_, info = env.step(np.full(3, number / 10, dtype=np.float32))
            assert info["delay"] == 5
    assert [round(float(one[0]), 1) for one in env.unwrapped.actions] == [0.0] * 5 + [0.1] * 3
