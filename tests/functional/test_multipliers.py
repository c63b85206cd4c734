"""Steps of a Lagrange multiplier."""

import math

import pytest

from budget_wrappers.errors import ConfigError, NonFiniteError
from budget_wrappers.functional.multipliers import PIDGains, PIDState, log_ascent, pid_step, relative_violation


def test_ascent_multiplies_by_a_power_of_cost_over_budget() -> None:
    # λ = 2, cost four times the budget, rate 1/2: λ ← 2 · 4^(1/2) = 4.
    assert math.exp(log_ascent(math.log(2), math.log(4), 0.5)) == pytest.approx(4.0)


def test_ascent_at_the_budget_stays() -> None:
    assert log_ascent(-3.0, 0.0, 0.7) == -3.0


@pytest.mark.parametrize(("violation", "expected"), [(100.0, 1.5), (-100.0, -2.0), (0.25, 0.25)])
def test_ascent_stays_within_its_bounds(violation: float, expected: float) -> None:
    assert log_ascent(0.0, violation, 1.0, low=-2.0, high=1.5) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_ascent_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"violation is .*expected a finite number"):
        log_ascent(0.0, bad, 1.0)
    with pytest.raises(NonFiniteError, match=r"log_multiplier is "):
        log_ascent(bad, 0.0, 1.0)
    with pytest.raises(ConfigError, match=r"rate="):
        log_ascent(0.0, 0.0, bad)


def test_ascent_refuses_a_negative_rate_and_crossed_bounds() -> None:
    with pytest.raises(ConfigError, match=r"rate=-1.0: expected a finite number >= 0"):
        log_ascent(0.0, 0.0, -1.0)
    with pytest.raises(ConfigError, match=r"low=1.0 and high=0.0: expected low <= high"):
        log_ascent(0.0, 0.0, 1.0, 1.0, 0.0)


def test_pid_matches_the_equation_by_hand() -> None:
    gains = PIDGains(proportional=1.0, integral=0.1, derivative=10.0)
    multiplier, state = pid_step(PIDState(), 0.5, gains)
    assert multiplier == pytest.approx(0.5 + 0.1 * 0.5)  # no change before the first step
    multiplier, state = pid_step(state, 0.75, gains)
    assert multiplier == pytest.approx(0.75 + 0.1 * 1.25 + 10 * 0.25)
    assert state == PIDState(1.25, 0.75)


def test_pid_ignores_a_fall_of_the_violation() -> None:
    only = PIDGains(derivative=3.0)
    assert pid_step(PIDState(last=2.0), 1.0, only)[0] == 0.0


def test_pid_leaves_no_debt_where_the_budget_was_kept_for_long() -> None:
    state = PIDState()
    for _ in range(100):
        multiplier, state = pid_step(state, -1.0, PIDGains(1.0, 1.0))
        assert multiplier == 0.0
    assert pid_step(state, 0.5, PIDGains(integral=1.0))[0] == 0.5


def test_an_integral_alone_is_projected_dual_ascent() -> None:
    violations, state, expected = [0.5, -0.25, -1.0, 0.75], PIDState(), 0.0
    for violation in violations:
        multiplier, state = pid_step(state, violation, PIDGains(integral=2.0))
        expected = max(expected + 2.0 * violation, 0.0)
        assert multiplier == expected


def test_pid_refuses_negative_gains_and_infinite_violations() -> None:
    with pytest.raises(ConfigError, match=r"integral=-0.1: expected a finite gain >= 0"):
        PIDGains(integral=-0.1)
    with pytest.raises(NonFiniteError, match=r"violation is nan"):
        pid_step(PIDState(), math.nan, PIDGains(1.0))


@pytest.mark.parametrize("rule", ["ascent", "pid"])
def test_a_multiplier_finds_the_price_at_which_demand_meets_the_budget(rule: str) -> None:
    # Demand 1/λ meets a budget of 0.25 at λ = 4.
    multiplier, log_multiplier, state = 1.0, 0.0, PIDState()
    for _ in range(500):
        violation = relative_violation(1 / max(multiplier, 0.1), 0.25)
        if rule == "ascent":
            log_multiplier = log_ascent(log_multiplier, violation, 0.1)
            multiplier = math.exp(log_multiplier)
        else:
            multiplier, state = pid_step(state, violation, PIDGains(0.5, 0.1))
    assert multiplier == pytest.approx(4.0, rel=1e-4)


def test_violations_have_no_unit() -> None:
    assert relative_violation(300.0, 200.0) == relative_violation(3e9, 2e9) == 0.5
    assert relative_violation(0.0, 7.0) == -1.0
    with pytest.raises(ConfigError, match=r"budget=0: expected a finite number > 0"):
        relative_violation(1.0, 0)
