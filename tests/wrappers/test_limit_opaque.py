"""ComputeLimit around an opaque policy, one step late at most, and budgets that change at run time."""

from typing import Any, ClassVar

import gymnasium as gym
import pytest

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import HORIZON, SpacesEnv, cheap, dear, make


class TestContract(WrapperContract):
    wrapper = ComputeLimit
    variants: ClassVar = {
        "max_flops": ({"max_flops": 300}, {"max_flops": 500}),
        "on_exhausted": ({"on_exhausted": "truncate"}, {"on_exhausted": "terminate"}),
        "meter": ({"meter": "policy"}, {"meter": "tests.another"}),
        "horizon": ({"horizon": None}, {"horizon": 3}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"max_flops": 300, "on_exhausted": "truncate"}

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return super().visible(env)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def opaque(meter: ComputeMeter, costs: list[int], limit: int, mode: str) -> tuple[ComputeLimit, list[tuple[Any, ...]]]:
    env = ComputeLimit(make(), limit, mode, meter=meter)
    env.reset(seed=0)
    transitions = []
    for cost in costs:
        meter.add(cost)
        transitions.append(env.step(env.action_space.sample()))
    return env, transitions


def test_cheapest_needs_something_that_chooses(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="on_exhausted='cheapest' needs a wrapper inside that chooses"):
        ComputeLimit(make(), 100, meter=meter)


@pytest.mark.parametrize(("mode", "flags"), [("truncate", (False, True)), ("terminate", (True, False))])
def test_an_opaque_policy_is_ended_at_the_step_that_exhausts(meter: ComputeMeter, mode: str, flags: Any) -> None:
    env, transitions = opaque(meter, [60, 39, 30], 100, mode)
    assert [t[2:4] for t in transitions] == [(False, False), (False, False), flags]
    assert (env.overshoot, env.remaining) == (29, 0)


def test_spending_exactly_the_limit_is_no_overshoot(meter: ComputeMeter) -> None:
    env, transitions = opaque(meter, [60, 40], 100, "truncate")
    assert (transitions[-1][3], env.overshoot) == (True, 0)


def test_hold_finishes_the_episode_of_an_opaque_policy_inside_the_step(meter: ComputeMeter) -> None:
    env, transitions = opaque(meter, [60, 60], 100, "hold")
    assert transitions[-1][1] == sum(range(2, 13))
    assert transitions[-1][3] is True
    assert len(env.unwrapped.actions) == HORIZON
    assert all(action is env.unwrapped.actions[1] for action in env.unwrapped.actions[1:])
    assert env.limit_report()["held_steps"] == 10.0


def test_hold_around_an_opaque_policy_needs_a_horizon(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="Pass horizon="):
        ComputeLimit(SpacesEnv(), 100, "hold", meter=meter)
    env = ComputeLimit(SpacesEnv(), 100, "hold", meter=meter, horizon=5)
    env.reset()
    meter.add(100)
    assert env.step(None)[1:4] == (15.0, False, True)  # 1 + 2 + 3 + 4 + 5


@pytest.mark.parametrize("outside", [True, False])
def test_overshoot_reaches_the_recorder_from_either_side(meter: ComputeMeter, outside: bool) -> None:
    if outside:
        env: gym.Env = RecordComputeStatistics(ComputeLimit(make(), 100, "truncate", meter=meter), meter)
    else:
        env = ComputeLimit(RecordComputeStatistics(make(), meter), 100, "truncate", meter=meter)
    env.reset()
    for _ in range(2):
        meter.add(70)
        info = env.step(env.action_space.sample())[4]
    assert info["cost"] == 70.0
    assert (info["compute"]["flops"], info["compute"]["overshoot"]) == (140.0, 40.0)


def test_the_penalised_return_survives_an_end_that_the_inner_wrappers_do_not_see(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(RecordComputeStatistics(make(), meter), 0.01, meter=meter)
    env = ComputeLimit(env, 100, "truncate", meter=meter)
    env.reset()
    meter.add(100)
    account = env.step(env.action_space.sample())[4]["compute"]
    assert (account["return_raw"], account["return_penalised"], account["limit"]) == (1.0, 0.0, 100.0)


def test_an_unconnected_meter_raises_at_the_end(meter: ComputeMeter) -> None:
    env = ComputeLimit(SpacesEnv(end_at=1), 100, "truncate", meter=meter)
    env.reset()
    with pytest.raises(MeterError, match="never watched"):
        env.step(None)


# Budgets at run time.


@pytest.mark.parametrize("through_reset", [True, False])
def test_a_new_budget_holds_from_the_next_reset_through_any_nesting(meter: ComputeMeter, through_reset: bool) -> None:
    inner = ComputeLimit(make(), 100, "truncate", meter=meter)
    env = gym.Wrapper(RecordComputeStatistics(inner, meter))
    env.reset()
    if through_reset:
        env.reset(options={"budget": 500})
    else:
        env.get_wrapper_attr("set_budget")(500)
        assert inner.remaining == 100
        env.reset()
    assert inner.remaining == 500
    env.reset()
    assert inner.remaining == 500  # and stays


def test_options_travel_on_untouched(meter: ComputeMeter) -> None:
    env = ComputeLimit(make(), 100, "truncate", meter=meter)
    given = {"budget": 500, "other": 1}
    env.reset(options=given)
    assert given == {"budget": 500, "other": 1} == env.unwrapped.resets[-1]["options"]


def test_an_infeasible_new_budget_leaves_the_old_one(meter: ComputeMeter) -> None:
    chooser = SubPolicyAction(make(), [cheap("box"), dear("box")], hold=3, meter=meter)
    env = ComputeLimit(chooser, 100, meter=meter)
    with pytest.raises(InfeasibleBudgetError, match="29 FLOPs an episode is below the 30"):
        env.set_budget(29)
    with pytest.raises(InfeasibleBudgetError):
        env.reset(options={"budget": 29})
    assert env.max_flops == 100


@pytest.mark.parametrize("limit", [0, -5, 1.5, float("nan"), float("inf"), "100", True, None])
def test_a_limit_is_a_positive_whole_number(meter: ComputeMeter, limit: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number >= 1"):
        ComputeLimit(make(), limit, "truncate", meter=meter)


def test_a_whole_float_is_a_limit(meter: ComputeMeter) -> None:
    assert ComputeLimit(make(), 1e6, "truncate", meter=meter).max_flops == 10**6


@pytest.mark.parametrize("arguments", [{"on_exhausted": "stop"}, {"horizon": 0}, {"horizon": 2.5}])
def test_arguments_out_of_bounds_raise(meter: ComputeMeter, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ComputeLimit(make(), **{"max_flops": 100, "on_exhausted": "truncate", "meter": meter, **arguments})
