"""Prioritized replay: the tree sums, the draws follow the priorities, the weights undo them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import DQN
from agents.replay.prioritized import PrioritizedReplay, SumTree
from budget_wrappers.errors import ConfigError
from tests.agents.probes import constant


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=70), data=st.data())
def test_tree_finds_what_a_running_sum_finds(values: list[int], data: st.DataObject) -> None:
    tree, numbers = SumTree(len(values)), np.array(values, float)
    order = data.draw(st.permutations(range(len(values))))
    half = len(order) // 2
    tree.set(np.array(order[:half], np.int64), numbers[order[:half]])
    for index in order[half:]:
        tree.set_one(index, numbers[index])
    assert tree.total == sum(values)
    assert np.array_equal(tree.get(np.arange(len(values))), numbers)
    masses = np.arange(sum(values)) + 0.5
    assert np.array_equal(tree.index_at(masses), np.searchsorted(np.cumsum(numbers), masses, side="right"))


def test_of_equal_indices_the_last_value_counts() -> None:
    tree = SumTree(4)
    tree.set(np.array([2, 1, 2]), np.array([9.0, 3.0, 5.0]))
    assert tree.get(np.arange(4)).tolist() == [0.0, 3.0, 5.0, 0.0]
    assert tree.total == 8.0


def test_mass_at_the_very_end_never_finds_an_empty_place() -> None:
    tree = SumTree(5)
    tree.set(np.arange(3), np.array([0.1, 0.2, 0.3]))
    assert tree.index_at(np.array([tree.total, tree.total + 1e-9])).tolist() == [2, 2]


def filled(count: int, capacity: int = 8, **settings: float) -> PrioritizedReplay:
    """Return a replay in which transition ``i`` shows ``i``."""
    replay = PrioritizedReplay(capacity, (1,), (), discrete=True, **settings)
    for number in range(count):
        row, flag = np.array([[number]], np.float32), np.array([False])
        replay.add(row, np.array([0]), np.array([0.0]), row, flag, flag)
    return replay


def test_draws_and_weights_match_their_formulas() -> None:
    replay = filled(4, alpha=0.5, beta=0.7, floor=0.0)
    replay.update_priorities(torch.arange(4), torch.tensor([1.0, -4.0, 9.0, -16.0]))
    # pᵃ = √|error| = 1, 2, 3, 4, so P = 0.1, 0.2, 0.3, 0.4.
    probability = np.array([0.1, 0.2, 0.3, 0.4])
    batch = replay.sample(10_000, torch.Generator().manual_seed(0))
    share = np.bincount(batch.index, minlength=4) / 10_000
    # Stratified: each boundary between two transitions is off by one draw at most.
    np.testing.assert_allclose(share, probability, atol=3e-4)
    weight = (4 * probability) ** -0.7
    np.testing.assert_allclose(batch.weight, (weight / weight.max())[batch.index], rtol=1e-6)
    assert batch.weight.max() == 1.0


def test_full_weights_make_the_estimate_unbiased() -> None:
    replay = filled(4, alpha=1.0, beta=1.0, floor=0.0)
    replay.update_priorities(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    batch = replay.sample(10_000, torch.Generator().manual_seed(0))
    estimate = (batch.weight * batch.observation[:, 0]).sum() / batch.weight.sum()
    assert float(estimate) == pytest.approx(np.mean([0, 1, 2, 3]), abs=2e-3)


def test_new_transitions_get_the_highest_priority_yet() -> None:
    replay = filled(2, alpha=1.0, floor=0.0)
    replay.update_priorities(torch.tensor([0]), torch.tensor([5.0]))
    row, flag = np.array([[2.0]], np.float32), np.array([False])
    replay.add(row, np.array([0]), np.array([0.0]), row, flag, flag)
    assert replay.tree.get(np.arange(3)).tolist() == [5.0, 1.0, 5.0]


def test_overwritten_places_are_never_drawn_for_what_they_held() -> None:
    replay = filled(11, capacity=4, alpha=1.0)
    shown = replay.sample(1_000, torch.Generator().manual_seed(0)).observation[:, 0]
    assert sorted(set(shown.tolist())) == [7.0, 8.0, 9.0, 10.0]
    assert replay.tree.total == 4.0


def test_state_round_trip_draws_the_same() -> None:
    replay, other = filled(6), filled(0)
    replay.update_priorities(torch.arange(6), torch.arange(6.0))
    other.load_state_dict(replay.state_dict())
    one, two = (one.sample(50, torch.Generator().manual_seed(1)) for one in (replay, other))
    assert torch.equal(one.index, two.index)
    assert torch.equal(one.weight, two.weight)
    assert other.highest == replay.highest


def test_agent_writes_its_errors_back_and_anneals_beta() -> None:
    agent = DQN(constant(True), prioritized=True, priority_beta=0.4, learning_starts=0, batch_size=8, train_freq=1)
    agent.learn(50)
    assert agent.replay.beta == 1.0
    priorities = agent.replay.tree.get(np.arange(50))
    assert len(np.unique(priorities)) > 5
    agent.learn(50)
    # At step 75 of 100: 0.4 + 0.75·0.6.
    agent.num_timesteps = 75
    agent.after_step()
    assert agent.replay.beta == pytest.approx(0.85)


def test_with_hindsight_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="prioritized=True with hindsight=4: expected one of them"):
        DQN(constant(True), prioritized=True, hindsight=4)
