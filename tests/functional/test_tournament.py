"""Who leads, who wins and who is replaced: numbers by hand, invariants for any losses, a simulation in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_wrappers.functional.tournament import (
    champion,
    draw_tournaments,
    inverse_loss_shares,
    replacements,
    winners,
)

NAN, INF = math.nan, math.inf
a_loss = st.one_of(st.floats(0, 1e6), st.just(NAN), st.just(INF), st.integers(0, 3).map(float))


def test_the_least_loss_leads_and_of_equal_ones_the_first() -> None:
    assert champion(np.array([3.0, 1.0, 1.0])) == 1
    assert champion(np.array([NAN, 7.0, INF])) == 1
    assert champion(np.array([NAN, NAN])) == 0


def test_winners_are_those_found_by_hand() -> None:
    losses = np.array([4.0, 2.0, NAN, 2.0])
    # 1 before 3, which is equal, before 0; the one that has diverged wins where nobody else competes.
    assert winners(losses, np.array([[0, 3], [3, 1], [2, 0], [2, 2]])).tolist() == [3, 1, 0, 2]


def test_shares_are_inverse_to_losses() -> None:
    # 1/2 : 1/4 : 1/4 : 1/8 : 1/8 over 1.25
    shares = inverse_loss_shares(np.array([2.0, 4.0, 4.0, 8.0, 8.0]))
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1], abs=1e-6)


def test_members_that_have_diverged_have_no_share_and_equal_ones_the_same() -> None:
    assert inverse_loss_shares(np.array([NAN, 1.0, INF, 1.0])).tolist() == [0.0, 0.5, 0.0, 0.5]
    assert inverse_loss_shares(np.zeros(4)).tolist() == [0.25] * 4
    assert inverse_loss_shares(np.array([NAN, NAN])).tolist() == [0.5, 0.5]


def test_replacements_are_those_found_by_hand() -> None:
    # Selected are 1 three times, 4 once and 3 once: 1 stays where it is, its two copies go to 0 and 2.
    assert replacements([1, 1, 4, 1, 3], 5) == [(0, 1), (2, 1)]
    assert replacements([0, 1, 2], 3) == []
    assert replacements([2, 2, 2], 3) == [(0, 2), (1, 2)]


@settings(max_examples=300, deadline=None)
@given(losses=st.lists(a_loss, min_size=2, max_size=9), size=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_the_champion_stays_and_at_least_the_last_ones_go(losses: list[float], size: int, seed: int) -> None:
    members = len(losses)
    size = min(size, members)
    drawn = draw_tournaments(np.random.default_rng(seed), members, size)
    assert drawn.shape == (members - 1, size)
    assert all(len(set(row)) == size for row in drawn.tolist())
    values = np.array(losses)
    selected = [champion(values), *winners(values, drawn).tolist()]
    given_away = replacements(selected, members)
    places, sources = [place for place, _ in given_away], [source for _, source in given_away]
    assert champion(values) not in places
    assert not set(places) & set(selected)
    assert set(sources) <= set(selected)
    assert len(given_away) >= size - 1  # the M − 1 last members win against nobody
    # The new population, as a multiset, is what was selected.
    now = [dict(given_away).get(member, member) for member in range(members)]
    assert sorted(now) == sorted(selected)


@settings(max_examples=200, deadline=None)
@given(losses=st.lists(a_loss, min_size=1, max_size=9))
def test_shares_are_a_distribution(losses: list[float]) -> None:
    shares = inverse_loss_shares(np.array(losses))
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1.0)
    if any(math.isfinite(loss) for loss in losses):
        assert all(share == 0 for share, loss in zip(shares, losses, strict=True) if not math.isfinite(loss))
