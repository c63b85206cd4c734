"""Selectors that look at nothing: constant mixtures, recorded choices in another order, mixtures of a given cost."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_wrappers.core import Choice, Selector
from budget_wrappers.errors import ConfigError, CostError, InfeasibleBudgetError
from budget_wrappers.selection import coin, mixture_of_cost, shuffled


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_control_is_a_selector() -> None:
    assert all(isinstance(one, Selector) for one in (coin([0.5, 0.5], generator()), shuffled([Choice(0)], generator())))


# ---- coin -----------------------------------------------------------------------------------------------------------


def test_a_coin_picks_each_with_its_probability() -> None:
    rule = coin([0.1, 0.6, 0.3], generator())
    counts = np.bincount([rule(None).index for _ in range(10_000)], minlength=3)
    # standard deviations √(10⁴·p·(1 − p)): 30, 49 and 46; five of the largest
    assert np.abs(counts - [1000, 6000, 3000]).max() < 5 * 49


def test_a_coin_is_free_and_holds_for_its_duration() -> None:
    rule = coin([0.0, 1.0], generator(), duration=5)
    assert (rule.flops, rule(np.ones(3))) == (0, Choice(1, 0, 5))


@pytest.mark.parametrize("never", [0, 1, 2])
def test_what_has_no_probability_is_never_picked(never: int) -> None:
    probabilities = np.full(3, 0.5)
    probabilities[never] = 0.0
    rule = coin(probabilities, generator())
    assert never not in {rule(None).index for _ in range(500)}


class Ends(np.random.Generator):
    """Draws the least and the greatest number that a generator may."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self.drawn = [0.0, 1.0 - 2.0**-53]

    def random(self, *arguments: Any, **keywords: Any) -> float:
        return self.drawn.pop(0)


def test_draws_at_the_ends_pick_what_has_a_probability() -> None:
    rule = coin([0.0, 0.1, 0.2, 0.7, 0.0], Ends())
    assert [rule(None).index for _ in range(2)] == [1, 3]


def test_a_coin_follows_its_generator() -> None:
    draws = [[coin([0.5, 0.5], generator(seed))(None).index for _ in range(1)] for seed in range(20)]
    assert draws == [[coin([0.5, 0.5], generator(seed))(None).index for _ in range(1)] for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) == 2


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([], "expected at least one number"),
        ([[0.5, 0.5]], "expected at least one number in a row"),
        ([1.5, -0.5], "each 0 or more"),
        ([0.5, float("nan")], "each 0 or more"),
        (["a", "b"], "expected at least one number"),
        (["0.5", "0.5"], "expected at least one number"),
        (None, "expected at least one number"),
        ([0.5, 0.4], r"sum to .*0\.9.*expected 1; divide them by their sum"),
    ],
)
def test_what_is_no_mixture_is_refused(probabilities: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        coin(probabilities, generator())


@pytest.mark.parametrize("wrong", [0, None, np.random, "seed"])
def test_a_generator_is_needed(wrong: Any) -> None:
    for make in (lambda: coin([1.0], wrong), lambda: shuffled([Choice(0)], wrong)):
        with pytest.raises(ConfigError, match=r"generator=.*expected a numpy\.random\.Generator"):
            make()


@pytest.mark.parametrize("duration", [0, 1.5, True, None])
def test_a_duration_is_a_positive_whole_number(duration: Any) -> None:
    with pytest.raises(ConfigError, match="duration="):
        coin([1.0], generator(), duration)


# ---- shuffled -------------------------------------------------------------------------------------------------------

choices = st.lists(
    st.builds(Choice, st.integers(0, 3), st.integers(0, 100), st.integers(1, 5)), min_size=1, max_size=20
)


@settings(max_examples=100, deadline=None)
@given(record=choices, seed=st.integers(0, 2**32 - 1))
def test_each_pass_hands_out_each_choice_as_often_as_it_was_recorded(record: list[Choice], seed: int) -> None:
    rule = shuffled(record, generator(seed))
    for _ in range(3):
        assert Counter(rule(None) for _ in record) == Counter(record)


def test_passes_are_in_different_orders() -> None:
    record = [Choice(index) for index in range(50)]
    rule = shuffled(record, generator())
    first, second = ([rule(None).index for _ in record] for _ in range(2))
    assert list(range(50)) != first != second


def test_each_order_is_equally_likely() -> None:
    rule = shuffled([Choice(0), Choice(1), Choice(2)], generator())
    orders = Counter(tuple(rule(None).index for _ in range(3)) for _ in range(3000))
    # 500 expected of each of 6, standard deviation √(3000·⅙·⅚) = 20: five of them
    assert len(orders) == 6
    assert max(abs(count - 500) for count in orders.values()) < 5 * 20


def test_a_shuffled_record_costs_at_most_its_most_expensive_choice() -> None:
    assert shuffled([Choice(0, 5), Choice(1, 70), Choice(0)], generator()).flops == 70


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "at least one recorded Choice"),
        ([Choice(0), 1], r"choices\[1\]=1: expected a Choice"),
        ("01", "expected a sequence of Choice"),
        (Choice(0), "expected a sequence of Choice"),
        (None, "expected a sequence of Choice"),
    ],
)
def test_what_is_no_record_is_refused(record: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shuffled(record, generator())


# ---- mixtures of a cost ---------------------------------------------------------------------------------------------


def test_weight_moves_towards_the_dearest_until_the_mean_is_met() -> None:
    # ½·10 + ½·20 = 15; towards 40: 15 + t·25 = 20 at t = .2: .8·½, .8·½, .2
    assert mixture_of_cost([10, 20, 40], [0.5, 0.5, 0.0], 20) == pytest.approx([0.4, 0.4, 0.2])


def test_weight_moves_towards_the_cheapest_where_shares_cost_more() -> None:
    # ½·20 + ½·40 = 30; towards 10: 30 − t·20 = 25 at t = ¼
    assert mixture_of_cost([10, 20, 40], [0.0, 0.5, 0.5], 25) == pytest.approx([0.25, 0.375, 0.375])


def test_shares_that_cost_what_was_asked_stay() -> None:
    assert mixture_of_cost([10, 20, 40], [0.25, 0.5, 0.25], 22.5).tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize("asked", [40, 41, 1e12])
def test_beyond_the_dearest_all_weight_is_on_it(asked: float) -> None:
    assert mixture_of_cost([10, 20, 40], [0.5, 0.5, 0.0], asked).tolist() == [0.0, 0.0, 1.0]


def test_at_the_cheapest_all_weight_is_on_it() -> None:
    assert mixture_of_cost([10, 20, 40], [0.5, 0.25, 0.25], 10).tolist() == [1.0, 0.0, 0.0]


def test_between_equal_costs_shares_stay() -> None:
    assert mixture_of_cost([7, 7, 7], [0.1, 0.2, 0.7], 7).tolist() == pytest.approx([0.1, 0.2, 0.7], abs=1e-15)


def test_order_of_sub_policies_is_free() -> None:
    assert mixture_of_cost([40, 10], [0.0, 1.0], 25) == pytest.approx([0.5, 0.5])


costs_and_shares = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 10**9), min_size=count, max_size=count),
        st.lists(st.floats(1e-3, 1.0), min_size=count, max_size=count),
        st.floats(0.0, 1.0),
    )
)


@settings(max_examples=300, deadline=None)
@given(drawn=costs_and_shares)
def test_the_mean_is_met_exactly_and_shares_sum_to_one(drawn: tuple[list[int], list[float], float]) -> None:
    flops, raw, place = drawn
    shares, asked = np.array(raw) / sum(raw), min(flops) + place * (max(flops) - min(flops))
    mixture = mixture_of_cost(flops, shares, asked)
    assert mixture.sum() == pytest.approx(1.0, abs=1e-12)
    assert (mixture >= 0).all()
    assert mixture @ np.array(flops, float) == pytest.approx(asked, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(drawn=costs_and_shares)
def test_all_but_one_keep_their_proportions(drawn: tuple[list[int], list[float], float]) -> None:
    flops, raw, place = drawn
    shares, asked = np.array(raw) / sum(raw), min(flops) + place * (max(flops) - min(flops))
    mixture = mixture_of_cost(flops, shares, asked)
    ratio = mixture / shares  # (1 − t) everywhere but where weight has moved to
    assert (np.abs(ratio - ratio.min()) > 1e-9).sum() <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([10, 20], [0.5, 0.5], 9), InfeasibleBudgetError, r"mean_flops=9\.0 is below the 10 of the cheapest"),
        (([10, 20], [1.0], 15), ConfigError, "expected 2, one for each of flops"),
        (([10, 20], [0.5, 0.6], 15), ConfigError, "shares sum to"),
        (([10, -20], [0.5, 0.5], 15), CostError, "-20"),
        (([10, 20], [0.5, 0.5], float("nan")), ConfigError, "mean_flops=nan"),
        (([10, 20], [0.5, 0.5], "15"), ConfigError, "mean_flops='15'"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mixture_of_cost(*arguments)
