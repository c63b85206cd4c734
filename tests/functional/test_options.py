"""The arithmetic of options and of a hard limit on them."""

import itertools

import numpy as np
import pytest
import torch

from budget_wrappers.functional.options import (
    affordable_flops,
    decision_flops,
    option_discount,
    option_reward,
    path_flops,
)


def test_an_option_pays_for_the_steps_really_taken() -> None:
    # rewards 1 + 2 + 3 = 6, less 0.01 · 3 steps · 4 times the cheapest = 0.12
    assert option_reward(6.0, 3, 4.0, 0.01) == pytest.approx(5.88)


def test_option_rewards_batch_like_a_loop() -> None:
    sums, steps, costs = np.array([1.0, 5.0]), np.array([2, 5]), np.array([1.0, 8.0])
    looped = [option_reward(r, n, c, 0.1) for r, n, c in zip(sums, steps, costs, strict=True)]
    assert option_reward(sums, steps, costs, 0.1) == pytest.approx(looped)
    assert option_reward(torch.tensor(sums), torch.tensor(steps), torch.tensor(costs), 0.1).tolist() == looped


def test_the_discount_of_an_option_is_gamma_to_its_duration() -> None:
    assert option_discount(0.9, 3, False) == pytest.approx(0.729)


def test_the_published_codes_discount_is_gamma() -> None:
    assert option_discount(0.9, 3, False, "one") == 0.9


@pytest.mark.parametrize("terminated", [True, np.array([True]), torch.tensor([True])])
def test_termination_cuts_the_bootstrap(terminated: bool) -> None:
    assert option_discount(0.9, 3, terminated) == 0.0


def test_discounts_of_a_batch_of_tensors() -> None:
    result = option_discount(0.5, torch.tensor([1, 2, 3]), torch.tensor([False, True, False]))
    assert result.tolist() == [0.5, 0.0, 0.125]


@pytest.mark.parametrize(
    ("steps_left", "expected"),
    [(None, 7 + 5 * 10), (100, 7 + 5 * 10), (3, 7 + 3 * 10), (0, 7)],
)
def test_the_cheapest_decision(steps_left: int | None, expected: int) -> None:
    assert decision_flops(steps_left, hold=5, cheapest=10, selector=7) == expected


def test_the_cheapest_path_pays_a_selector_call_for_each_begun_option() -> None:
    # 12 steps in options of 5: three calls
    assert path_flops(12, hold=5, cheapest=10, selector=7) == 12 * 10 + 3 * 7


def test_a_choice_may_spend_what_the_cheapest_path_leaves() -> None:
    # H = 12, n = 5; the 7 steps after it need 7·10 and two calls at 7: 84 of 200 are kept back
    assert affordable_flops(200, 12, hold=5, cheapest=10, selector=7) == 200 - 84


def test_below_the_cheapest_path_only_the_cheapest_is_left() -> None:
    # the reserve is 84, and 100 − 84 = 16 pays no option of 5·10
    assert affordable_flops(100, 12, hold=5, cheapest=10, selector=7) == 50


def test_nobody_may_spend_more_than_there_is() -> None:
    assert affordable_flops(30, 12, hold=5, cheapest=10, selector=7) == 30


def test_spending_the_allowance_keeps_the_cheapest_path_affordable() -> None:
    """Whatever a choice spends of its allowance, the cheapest choices after it are paid for, to the horizon."""
    for horizon, hold, cheapest, selector in itertools.product((1, 4, 11), (1, 3, 5), (0, 1, 10), (0, 3)):
        start = path_flops(horizon, hold, cheapest, selector)
        for surplus in (0, 1, 25):
            remaining, left = start + surplus, horizon
            spend_all = True
            while left:
                remaining -= selector
                allowed = affordable_flops(remaining, left, hold, cheapest, selector)
                steps = min(hold, left)
                assert allowed >= steps * cheapest
                remaining -= allowed if spend_all else steps * cheapest
                spend_all, left = False, left - steps
                assert remaining >= path_flops(left, hold, cheapest, selector)


def test_a_short_choice_is_refused_where_its_extra_call_would_break_the_path() -> None:
    # H = 10, h = 5, path 10·10 + 2·7 = 114. After one call 107 are left; one step of 10 leaves 97, and the 9 steps
    # after it need 90 + 2·7 = 104: 3 may be spent, not 10. The long one needs 50 and leaves 57 = 5·10 + 7
    assert affordable_flops(107, 10, hold=5, cheapest=10, selector=7, duration=1) == 3
    assert affordable_flops(107, 10, hold=5, cheapest=10, selector=7, duration=5) == 50


def test_out_of_reach_of_the_path_the_cheapest_runs_for_any_duration() -> None:
    assert affordable_flops(106, 10, hold=5, cheapest=10, selector=7, duration=1) == 10


def test_choosing_durations_keeps_the_cheapest_path_affordable() -> None:
    """The cheapest choice of the longest duration always fits, whatever durations were chosen before."""
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        horizon, hold = int(rng.integers(1, 30)), int(rng.integers(1, 8))
        cheapest, selector = int(rng.integers(0, 12)), int(rng.integers(0, 9))
        remaining, left = path_flops(horizon, hold, cheapest, selector) + int(rng.integers(0, 40)), horizon
        while left:
            remaining -= selector
            steps = min(left, int(rng.integers(1, hold + 1)))
            allowed = affordable_flops(remaining, left, hold, cheapest, selector, steps)
            spends = int(rng.integers(steps * cheapest, allowed + 1)) if allowed >= steps * cheapest else None
            if spends is None:
                steps = min(hold, left)
                spends = steps * cheapest
                assert spends <= affordable_flops(remaining, left, hold, cheapest, selector, steps)
            remaining, left = remaining - spends, left - steps
            assert remaining >= path_flops(left, hold, cheapest, selector)
