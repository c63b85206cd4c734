"""Masks of whole blocks: how many weights go, which, and that none comes back."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.block_sparsity import block_mask
from budget_wrappers.functional.sparsity import magnitude_mask


def drawn(outputs: int, inputs: int, seed: int = 0) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def zeros(mask: Tensor) -> int:
    return int((mask == 0).sum())


def test_the_block_of_the_least_magnitude_goes_first() -> None:
    # Blocks of 2 outputs × 1 input. Sums: |1| + |−4| = 5 and |2| + |2| = 4 above, |9| + |0| = 9 and |1| + |−1| = 2
    # below: 2 goes first, then 4. Three zeros have room for one block only.
    weight = torch.tensor([[1.0, 2.0], [-4.0, 2.0], [9.0, 1.0], [0.0, -1.0]])
    ones = torch.ones(4, 2)
    assert block_mask(weight, 2, ones, (2, 1)).tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]
    assert block_mask(weight, 3, ones, (2, 1)).tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]
    assert block_mask(weight, 4, ones, (2, 1)).tolist() == [[1, 0], [1, 0], [1, 0], [1, 0]]


def test_a_short_block_at_the_edge_is_ranked_by_its_mean() -> None:
    # Outputs 0 and 1 are one block, output 2 a short one. Means: (1 + 1)/2 = 1 and 1.5 in the first column,
    # (2 + 2)/2 = 2 and 3 in the second; by sums, 2 and 1.5, the short block would go first.
    weight = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.5, 3.0]])
    assert block_mask(weight, 2, torch.ones(3, 2), (2, 1)).tolist() == [[0, 1], [0, 1], [1, 1]]
    assert block_mask(weight, 3, torch.ones(3, 2), (2, 1)).tolist() == [[0, 1], [0, 1], [0, 1]]


def test_zeros_that_are_there_count() -> None:
    # One of four zeros is there already. The block that it is in has 3/2 left, the other (2 + 2)/2 = 2: the first goes,
    # for one zero more, and a third one has no room for the other block.
    weight, mask = torch.tensor([[9.0, 2.0], [3.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert block_mask(weight, 3, mask, (2, 1)).tolist() == [[0, 1], [0, 1]]
    assert block_mask(weight, 4, mask, (2, 1)).tolist() == [[0, 0], [0, 0]]
    assert block_mask(weight, 1, mask, (2, 1)) is mask


SIZES = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(outputs=SIZES, inputs=SIZES, high=st.integers(1, 18), wide=st.integers(1, 4), share=st.floats(0.0, 1.0))
def test_as_many_whole_blocks_go_as_fit(outputs: int, inputs: int, high: int, wide: int, share: float) -> None:
    weight, count = drawn(outputs, inputs), round(share * outputs * inputs)
    pruned = block_mask(weight, count, torch.ones_like(weight), (high, wide))
    assert count - high * wide < zeros(pruned) <= count
    for row in range(0, outputs, high):
        for column in range(0, inputs, wide):
            assert len(pruned[row : row + high, column : column + wide].unique()) == 1


@settings(max_examples=60, deadline=None)
@given(outputs=SIZES, inputs=SIZES, shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4))
def test_masks_only_grow(outputs: int, inputs: int, shares: list[float]) -> None:
    mask = magnitude_mask(drawn(outputs, inputs, 1), outputs * inputs // 4, torch.ones(outputs, inputs))
    for seed, share in enumerate(shares):  # the weights change in between
        before, count = mask, round(share * outputs * inputs)
        mask = block_mask(drawn(outputs, inputs, seed + 2), count, before)
        assert not ((before == 0) & (mask != 0)).any()
        assert zeros(mask) <= max(count, zeros(before))
        assert mask.dtype == before.dtype


def test_more_zeros_hold_fewer_zeros() -> None:
    weight = drawn(40, 20)
    masks = [block_mask(weight, count, torch.ones_like(weight)) for count in range(0, 801, 25)]
    for fewer, more in itertools.pairwise(masks):
        assert not ((fewer == 0) & (more != 0)).any()


@settings(max_examples=60, deadline=None)
@given(outputs=SIZES, inputs=SIZES, share=st.floats(0.0, 1.0))
def test_blocks_of_one_weight_are_a_magnitude_mask(outputs: int, inputs: int, share: float) -> None:
    weight, count = drawn(outputs, inputs), round(share * outputs * inputs)
    ones = torch.ones_like(weight)
    assert torch.equal(block_mask(weight, count, ones, (1, 1)), magnitude_mask(weight, count, ones))


def test_the_weight_stays_as_it_is_and_the_mask_too() -> None:
    weight, mask = drawn(20, 3).requires_grad_(), torch.ones(20, 3)
    before = weight.detach().clone()
    assert 32 - 16 < zeros(block_mask(weight, 32, mask)) <= 32
    assert torch.equal(weight, before)
    assert zeros(mask) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.ones(4)}, r"a weight of shape \(4,\) .* expected \(outputs, inputs\)"),
        ({"weight": [[1.0]]}, r"weight=\[\[1.0\]\]: expected a weight"),
        ({"mask": torch.ones(2, 4)}, r"a mask of shape \(2, 4\)"),
        ({"count": -1}, "count=-1: expected at least 0 and at most 8"),
        ({"count": 9}, "count=9: expected at least 0 and at most 8"),
        ({"block": (0, 1)}, "block=0: expected at least 1"),
        ({"block": 16}, "block=16: expected outputs and inputs of a block"),
    ],
)
def test_what_is_no_block_is_refused(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"weight": torch.ones(4, 2), "count": 2, "mask": torch.ones(4, 2), **changed}
    with pytest.raises(ConfigError, match=message):
        block_mask(**arguments)
