"""Which weights lie on a path: small nets by hand, and an oracle that multiplies matrices of whole numbers."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_wrappers.functional.paths import broken_at, on_paths, path_ends


def chain(count: int) -> list[list[tuple[int, int]]]:
    """Return what layers read that follow each other."""
    return [[], *([(layer, 0)] for layer in range(count - 1))]


def test_a_weight_is_on_a_path_where_an_input_reaches_it_and_an_output_is_reached() -> None:
    # Unit 1 of the first layer has no input, unit 2 no reader: their weights on the other side have no effect.
    first = torch.tensor([[1, 1], [0, 0], [1, 0]])
    second = torch.tensor([[1, 1, 0]])
    found = on_paths([first, second], chain(2))
    assert found[0].tolist() == [[True, True], [False, False], [False, False]]
    assert found[1].tolist() == [[True, False, False]]


def test_either_end_of_a_path_is_known_for_each_unit() -> None:
    # The same two layers: inputs reach units 0 and 2, and the output, which unit 0 and unit 1 reach.
    first, second = torch.tensor([[1, 1], [0, 0], [1, 0]]), torch.tensor([[1, 1, 0]])
    reached, wanted = path_ends([first, second], chain(2))
    assert [own.tolist() for own in reached] == [[True, False, True], [True]]
    assert [own.tolist() for own in wanted] == [[True, True, False], [True]]


def test_two_layers_may_read_one() -> None:
    trunk = torch.ones(2, 1)
    left, right = torch.tensor([[1, 0]]), torch.tensor([[0, 0]])
    found = on_paths([trunk, left, right], [[], [(0, 0)], [(0, 0)]])
    assert found[0].tolist() == [[True], [False]]
    found = on_paths([trunk, left, 1 - left], [[], [(0, 0)], [(0, 0)]])
    assert found[0].tolist() == [[True], [True]]


def test_a_layer_may_read_units_beside_inputs() -> None:
    # The second layer reads an input of the network, then the first layer's two units.
    first, second = torch.tensor([[1], [0]]), torch.tensor([[1, 1, 1]])
    assert on_paths([first, second], [[], [(0, 1)]])[1].tolist() == [[True, True, False]]


def test_channels_are_connected_by_any_weight_between_them() -> None:
    convolution = torch.zeros(2, 1, 2, 2)
    convolution[0, 0, 1, 1] = 1
    found = on_paths([convolution, torch.ones(1, 2)], chain(2))
    assert found[0].flatten().nonzero().flatten().tolist() == [3]
    assert found[1].tolist() == [[True, False]]


def test_the_layer_without_a_path_is_named() -> None:
    good = torch.ones(2, 2)
    assert broken_at([good, good], chain(2)) is None
    assert broken_at([torch.tensor([[1, 1], [0, 0]]), torch.tensor([[0, 1]])], chain(2)) == 0
    assert broken_at([good, torch.zeros(2, 2), good], chain(3)) == 0


@settings(max_examples=200, deadline=None)
@given(widths=st.lists(st.integers(1, 5), min_size=2, max_size=5), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_paths_match_oracle_that_counts_them(widths: list[int], seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    masks = [(rng.random((after, before)) < share).astype(np.int64) for before, after in itertools.pairwise(widths)]
    found = on_paths([torch.tensor(mask) for mask in masks], chain(len(masks)))
    for layer, mask in enumerate(masks):
        # Number of paths into each unit before the layer, and out of each unit after it.
        into = np.ones(widths[0], dtype=np.int64)
        for before in masks[:layer]:
            into = before @ into
        out = np.ones(widths[-1], dtype=np.int64)
        for after in reversed(masks[layer + 1 :]):
            out = out @ after
        np.testing.assert_array_equal(found[layer].numpy(), (mask * out[:, None] * into) > 0)
