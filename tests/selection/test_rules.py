"""Selectors that need no learning."""

import numpy as np
import pytest

from budget_wrappers.core import Choice, Selector
from budget_wrappers.errors import ConfigError, CostError, InfeasibleBudgetError
from budget_wrappers.selection import fixed, greedy_by_cost, random


def test_fixed_always_picks_the_same() -> None:
    rule = fixed(2, duration=5)
    assert [rule(observation) for observation in (None, np.ones(3))] == [Choice(2, 0, 5)] * 2


def test_every_rule_is_a_selector() -> None:
    assert all(isinstance(rule, Selector) for rule in (fixed(0), random(2, np.random.default_rng(0))))


def test_random_picks_each_equally_often() -> None:
    rule = random(4, np.random.default_rng(0))
    counts = np.bincount([rule(None).index for _ in range(4000)], minlength=4)
    # 1000 expected of each, standard deviation √(4000·¼·¾) = 27: five of them
    assert np.abs(counts - 1000).max() < 5 * 27


def test_random_follows_its_generator() -> None:
    first, same, other = (random(5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    draws = [[rule(None).index for _ in range(20)] for rule in (first, same, other)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(("budget", "index"), [(10, 0), (39, 0), (40, 1), (1e9, 2)])
def test_greedy_takes_the_dearest_that_the_budget_allows(budget: float, index: int) -> None:
    assert greedy_by_cost([10, 40, 160], budget)(None) == Choice(index)


def test_greedy_follows_a_new_budget() -> None:
    rule = greedy_by_cost([10, 40], 10)
    rule.set_budget(40)
    assert rule(None).index == 1


@pytest.mark.parametrize("budget", [9, float("nan")])
def test_a_budget_below_the_cheapest_names_both_numbers(budget: float) -> None:
    with pytest.raises(InfeasibleBudgetError, match=f"{budget!r} FLOPs a step is below the 10"):
        greedy_by_cost([10, 40], budget)


def test_greedy_refuses_an_illegal_cost() -> None:
    with pytest.raises(CostError, match="-40"):
        greedy_by_cost([10, -40], 10)


@pytest.mark.parametrize("make", [lambda: fixed(-1), lambda: fixed(0, 0), lambda: fixed(1.5), lambda: fixed(True)])
def test_fixed_refuses_what_is_no_index(make: object) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        make()


def test_random_refuses_an_empty_set() -> None:
    with pytest.raises(ConfigError, match="count=0"):
        random(0, np.random.default_rng(0))
