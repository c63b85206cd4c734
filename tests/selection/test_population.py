"""A population against a simulation in plain Python, its invariants, and the null model's drift."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_wrappers.errors import ConfigError
from budget_wrappers.selection.population import Exploration, Population


def simulated(
    losses: list[float], sparsities: list[float], rules: Exploration, times: tuple[float, float, float], rng: Any
) -> tuple[int, list[tuple[int, int, float]]]:
    """Return who is crowned and who is overwritten by whom at which sparsity, one member at a time."""

    def key(member: int) -> tuple[float, int]:
        return (math.inf if math.isnan(losses[member]) else losses[member], member)

    best = min(range(len(losses)), key=key)
    drawn = rng.permuted(np.tile(np.arange(len(losses)), (len(losses) - 1, 1)), axis=1)[:, : rules.tournament]
    selected = [best, *(min(row.tolist(), key=key) for row in drawn)]
    free = [member for member in range(len(losses)) if member not in selected]
    found = []
    for member in range(len(losses)):
        for _ in range(selected.count(member) - 1):
            sparsity = sparsities[member]
            if times[0] < times[2] and rules.max_growth:
                grown = (
                    (1 - sparsity) / (times[2] - times[0]) * (times[1] - times[0]) * rng.uniform(0, rules.max_growth)
                )
                sparsity += min(grown, (1 - sparsity) * rules.growth_cap)
            found.append((free.pop(0), member, sparsity))
    return best, found


@settings(max_examples=100, deadline=None)
@given(members=st.integers(2, 7), seed=st.integers(0, 10**6), data=st.data())
def test_generations_match_oracle(members: int, seed: int, data: st.DataObject) -> None:
    rules = Exploration(members, data.draw(st.integers(1, members)), data.draw(st.floats(0, 30)), 0.05, 1.0)
    population, oracle, rng = Population(rules), np.random.default_rng(seed), np.random.default_rng(seed)
    sparsities = [0.0] * members
    noise = np.random.default_rng(seed + 1)
    for step in range(0, 110, 10):
        losses = noise.integers(0, 4, members).astype(float)
        losses[noise.random(members) < 0.1] = math.nan
        population.losses[:] = losses
        crowned, expected = simulated(losses.tolist(), sparsities, rules, (step, step + 10, 100), oracle)
        found = population.advance(step, step + 10, 100, rng)
        assert population.crowned == crowned
        assert [tuple(one) for one in found] == [(p, s, pytest.approx(own, abs=1e-12)) for p, s, own in expected]
        for place, _, sparsity in expected:
            sparsities[place] = sparsity
        assert population.sparsities == pytest.approx(sparsities, abs=1e-12)
        assert not population.losses.any()
        assert all(place != crowned for place, _, _ in found)
        assert len(found) >= rules.tournament - 1
        assert all(own.sparsity >= population.sparsities[own.source] for own in found)


def test_a_dense_population_is_selected_and_never_pruned() -> None:
    population, rng = Population(Exploration(max_growth=0.0)), np.random.default_rng(0)
    for step in range(20):
        population.losses[:] = rng.random(5)
        assert population.advance(step, step + 1, 20, rng)
    assert not population.sparsities.any()


def test_from_the_end_on_nothing_grows() -> None:
    population, rng = Population(Exploration(growth_cap=0.5, max_growth=30.0)), np.random.default_rng(0)
    for step in range(30):
        population.losses[:] = rng.random(5)
        before = population.sparsities.max()
        population.advance(step, step + 1, 20, rng)
        assert step < 20 or population.sparsities.max() <= before
    assert population.sparsities.max() >= 0.5


def test_a_single_member_is_drawn_crowned_and_left_alone_without_a_draw() -> None:
    population, rng = Population(Exploration(members=1)), np.random.default_rng(0)
    before = rng.bit_generator.state
    assert population.draw(rng) == 0
    assert population.advance(0, 1, 10, rng) == ()
    assert rng.bit_generator.state == before


def test_members_are_drawn_by_the_inverse_of_their_losses() -> None:
    population, rng = Population(Exploration()), np.random.default_rng(0)
    population.losses[:] = 2.0, 4.0, 4.0, 8.0, math.nan
    counts = np.bincount([population.draw(rng) for _ in range(9_000)], minlength=5) / 9_000
    # ½, ¼, ¼ and ⅛ over 1.125; three standard errors of a share of .44 are .016
    assert counts == pytest.approx([0.444, 0.222, 0.222, 0.111, 0.0], abs=0.016)


@pytest.mark.parametrize("selection", ["loss", "random"])
def test_random_selection_is_blind_to_losses(selection: Any) -> None:
    rng, crowned = np.random.default_rng(0), []
    for _ in range(200):
        population = Population(Exploration(selection=selection))
        population.losses[:] = 5.0, 4.0, 3.0, 2.0, 1.0
        population.advance(0, 1, 100, rng)
        crowned.append(population.crowned)
    assert set(crowned) == ({4} if selection == "loss" else {0, 1, 2, 3, 4})


@pytest.mark.parametrize(("growth", "mean", "margin"), [(3.0, 0.905, 0.01), (10.0, 0.987, 0.003), (30.0, 0.995, 0.002)])
@pytest.mark.parametrize("generations", [400, 1_000])
def test_the_null_model_drifts_to_the_published_sparsities(
    growth: float, mean: float, margin: float, generations: int
) -> None:
    # S_max·n = 10 in each case: the drift depends on that product.
    ends = []
    for seed in range(30):
        population = Population(Exploration(max_growth=growth, growth_cap=10 / generations, selection="random"))
        rng = np.random.default_rng(seed)
        for step in range(generations):
            population.advance(step, step + 1, generations, rng)
        ends.append(population.sparsities[population.crowned])
    assert np.mean(ends) == pytest.approx(mean, abs=margin)


def test_sparsity_is_below_what_the_cap_allows_after_so_many_generations() -> None:
    population, rng = Population(Exploration(max_growth=1e6, selection="random")), np.random.default_rng(0)
    for step in range(100):
        population.advance(step, step + 1, 100, rng)
    assert population.sparsities.max() <= 1 - 0.99**100 + 1e-12  # .634


def test_a_state_is_plain_data_and_comes_back() -> None:
    population, rng = Population(Exploration()), np.random.default_rng(0)
    population.losses[:] = rng.random(5)
    population.advance(0, 1, 10, rng)
    population.losses[:] = 1.0, math.nan, 2.0, math.inf, 0.0
    twin = Population(Exploration())
    twin.load_state_dict(json.loads(json.dumps(population.state_dict())))
    assert (twin.crowned, twin.generation, twin.duplicates) == (population.crowned, 1, population.duplicates)
    np.testing.assert_array_equal(twin.sparsities, population.sparsities)
    np.testing.assert_array_equal(np.isfinite(twin.losses), np.isfinite(population.losses))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crowned": 5}, "crowned=5: expected one of the 5 members"),
        ({"sparsities": [0.0] * 4}, "expected 5 shares in"),
        ({"sparsities": [0.0, 0.0, 0.0, 0.0, 1.0]}, "expected 5 shares in"),
        ({"losses": [-1.0] * 5}, "expected 5 losses of 0 or more"),
        ({"duplicates": 5}, "duplicates=5: expected fewer"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    population = Population(Exploration())
    with pytest.raises(ConfigError, match=message):
        population.load_state_dict({**population.state_dict(), **change})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"members": 0}, "members=0: expected at least 1"),
        ({"tournament": 6}, "tournament=6 of members=5: expected as many different members at most; lower tournament"),
        ({"tournament": 0}, "tournament=0: expected at least 1"),
        ({"max_growth": -1.0}, "max_growth=-1.0: expected 0 or more"),
        ({"growth_cap": 1.5}, r"growth_cap=1.5: expected a share in \[0, 1\]"),
        ({"end": 0.0}, "end=0.0: expected a share of the run"),
        ({"selection": "luck"}, "selection='luck': expected one of loss, random"),
    ],
)
def test_rules_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Exploration(**given)
