"""Counts of FLOPs: one check at every door, the same for scalars and vectors, and sums that do not wrap around."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from torch import nn

from budget_wrappers.errors import BudgetError, CostError, MeterError
from budget_wrappers.functional.costs import relative_costs, validate_cost, validate_flops
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import AgentPolicy, FunctionPolicy, ModulePolicy
from budget_wrappers.wrappers import ComputeLimit, SubPolicyAction
from budget_wrappers.wrappers.vector import ComputeLimit as VectorLimit
from budget_wrappers.wrappers.vector import SubPolicyAction as VectorOptions

NO_COUNTS = [True, False, np.True_, "7", b"7", 1.5, 1e300, float(2**60), -1, 2**62, 2**70, np.uint64(2**63), None, 1j]


class Agent:
    def predict(self, observation: Any, deterministic: bool = True) -> tuple[int, None]:
        return 0, None


def cart_pole() -> gym.Env:
    return gym.make("CartPole-v1")


def options(**settings: Any) -> SubPolicyAction:
    return SubPolicyAction(cart_pole(), [FunctionPolicy(lambda o: 0, 10, "a")], **{"hold": 2, **settings})


def vector(wrapper: Any, *args: Any, **settings: Any) -> Any:
    return wrapper(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), *args, **settings)


def reporting(value: Any) -> ComputeMeter:
    """Let a module report ``value`` as the cost of its last forward."""
    meter, module = ComputeMeter(), nn.Identity()
    module.flops_of_last_forward = value
    meter.watch(module)
    module(np.zeros(1))
    return meter


def spending(value: Any) -> Any:
    """Let a sub-policy report ``value`` as the cost of its last call."""
    policy = FunctionPolicy(lambda o: 0, 10, "a")
    policy.flops_of_last_call = value
    env = SubPolicyAction(cart_pole(), [policy], hold=1, meter=ComputeMeter())
    env.reset(seed=0)
    return env.step(0)


def one_module(value: Any) -> Any:
    return ModulePolicy(nn.Linear(4, 2), lambda n, o: n(o).argmax(-1), example=np.zeros(4, np.float32), flops=value)


DOORS: dict[str, Callable[[Any], Any]] = {
    "meter.add": lambda value: ComputeMeter().add(value),
    "meter.add rows": lambda value: ComputeMeter().add(1, rows=value),
    "meter.add charged": lambda value: ComputeMeter().add(2**62 - 1, charged=value),
    "flops_of_last_forward": reporting,
    "flops_of_last_call": spending,
    "FunctionPolicy": lambda value: FunctionPolicy(lambda o: 0, value),
    "AgentPolicy": lambda value: AgentPolicy(Agent(), value),
    "ModulePolicy": one_module,
    "validate_flops": lambda value: validate_flops([1, value]),
    "relative_costs": lambda value: relative_costs([1, value]),
    "selector_flops": lambda value: options(selector_flops=value),
    "ComputeLimit": lambda value: ComputeLimit(cart_pole(), value, "truncate", meter=ComputeMeter()),
    "set_budget": lambda value: ComputeLimit(cart_pole(), 10, "truncate", meter=ComputeMeter()).set_budget(value),
    "reset options": lambda value: ComputeLimit(cart_pole(), 10, "truncate", meter=ComputeMeter()).reset(
        options={"budget": value}
    ),
    "vector ComputeLimit": lambda value: vector(VectorLimit, value, "truncate", meter=ComputeMeter()),
    "vector set_budget": lambda value: vector(VectorLimit, 10, "truncate", meter=ComputeMeter()).set_budget([1, value]),
}
WITH_NONE = {"meter.add charged", "ModulePolicy", "selector_flops"}
"""Doors where ``None`` means that nothing is given."""


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_count_is_refused_by_name_at_every_door(door: str) -> None:
    for value in NO_COUNTS:
        if value is None and door in WITH_NONE:
            continue
        with pytest.raises(BudgetError, match=r"expected|FLOPs"):
            pytest.fail(f"{door} accepted {value!r}: {DOORS[door](value)!r}")


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("flops_of_last_call", "ModulePolicy")])
@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), 7.0, np.float32(7), 2**62 - 1], ids=repr)
def test_whole_numbers_are_taken_at_every_door_in_any_type(door: str, value: Any) -> None:
    DOORS[door](value)


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), -1.0, None])
def test_costs_in_any_unit_are_numbers(value: Any) -> None:
    with pytest.raises(CostError, match="expected a finite number"):
        validate_cost(value)


# ---- sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flops", "by_row"),
    [
        (0, np.array([2**62] * 4)),  # wraps to 0 in int64
        (2**62 - 1, np.array([2**63, 2**63, 2**62 - 1], np.uint64)),  # wraps to 2**62 − 1 in uint64
        (0, np.array([2**63, 2**63], np.uint64)),
        (2**63, np.array([2**63], np.uint64)),
    ],
    ids=["int64", "uint64", "uint64 to 0", "above int64"],
)
def test_rows_that_sum_to_it_only_by_wrapping_around_are_refused(flops: int, by_row: np.ndarray) -> None:
    meter = ComputeMeter()
    with pytest.raises(CostError, match=r"sums to \d{19,}|expected at most"):
        meter.add(flops, rows=len(by_row), by_row=by_row)
    assert meter.totals["act"] == 0


def test_rows_of_any_type_sum_to_the_digit() -> None:
    meter = ComputeMeter()
    meter.add(2**61 + 2**53 + 1, rows=2, by_row=np.array([2**61, 2**53 + 1], np.uint64))
    assert meter.take().executed == 2**61 + 2**53 + 1


def test_charges_of_one_vector_step_that_int64_cannot_hold_are_refused() -> None:
    meter = ComputeMeter()
    keep = meter.keep_rows(meter)
    for name in "abcd":
        meter.add(2**62 - 2, name, rows=2)
    with pytest.raises(MeterError, match=r"charged 18446744073709551608 FLOPs .* less than 2\*\*63"):
        meter.take_by_row(2)
    keep()


def test_totals_of_a_long_training_may_exceed_what_one_charge_may_be() -> None:
    meter, again = ComputeMeter(), ComputeMeter()
    for _ in range(5):
        meter.add(2**62 - 1)
    again.load_state_dict(meter.state_dict())
    assert again.totals["act"] == 5 * (2**62 - 1)


# ---- names and durations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [5, "", b"x", ["a"], ("a",), 1.5])
def test_names_of_charges_are_text(name: Any) -> None:
    meter = ComputeMeter()
    for charge in (lambda: meter.add(1, name), lambda: meter.watch(nn.Linear(1, 1), name)):
        with pytest.raises(CostError, match="name="):
            charge()
    assert meter.totals["act"] == 0


@pytest.mark.parametrize("hold", [10**18, 2**31, [1, 2**40], True, 2.0, "3", 0])
@pytest.mark.parametrize("kind", ["one", "vector"])
def test_durations_are_steps_that_an_episode_can_have(hold: Any, kind: str) -> None:
    policies = [FunctionPolicy(lambda o: 0, 10, "a")]
    with pytest.raises(BudgetError, match="hold="):
        options(hold=hold) if kind == "one" else vector(VectorOptions, policies, hold=hold)
