"""Masks beside a network: what they multiply and leave alone, what is stored, copies, growth on a schedule."""

import copy

import pytest
import torch
from torch import nn

from agents.nets.mlp import MLP
from budget_wrappers.functional.sparsity import PolynomialSchedule
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.masks import Masks, ScheduledMasks
from budget_wrappers.modules.surgery import keep_units

SIZES = (3, 8, 8, 2)
COUNTS = [12, 32, 8]
"""Half of 8·3, 8·8 and 2·8 weights."""


def pruned(network: nn.Module, counts: list[int] = COUNTS) -> Masks:
    masks = Masks(network)
    masks.prune_smallest(counts)
    masks.apply_()
    return masks


@pytest.fixture
def network() -> MLP:
    torch.manual_seed(0)
    return MLP(SIZES, "relu")


# ---- multiplying --------------------------------------------------------------------------------------------------


def test_masks_are_multiplied_into_the_same_parameters(network: MLP) -> None:
    parameters = list(network.parameters())
    places, before = [p.data_ptr() for p in parameters], [p.detach().clone() for p in parameters]
    masks = pruned(network)
    assert [p.data_ptr() for p in network.parameters()] == places
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    for layer, mask in enumerate(masks.buffers()):
        assert torch.equal(parameters[2 * layer], before[2 * layer] * mask)
        assert torch.equal(parameters[2 * layer + 1], before[2 * layer + 1])  # biases are kept
        assert int((parameters[2 * layer] == 0).sum()) == COUNTS[layer]


def test_pruning_alone_changes_no_weight(network: MLP) -> None:
    before = [p.detach().clone() for p in network.parameters()]
    Masks(network).prune_smallest(COUNTS)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_weights_that_an_optimizer_has_moved_are_zero_again(network: MLP) -> None:
    masks = pruned(network)
    zeros = [mask == 0 for mask in masks._masks().values()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(16, 3)).square().sum().backward()
        optimizer.step()
        masks.apply_()
    assert all(not layer.weight[zero].any() for layer, zero in zip(network.linears, zeros, strict=True))


def test_new_masks_change_nothing(network: MLP) -> None:
    before, masks = [p.detach().clone() for p in network.parameters()], Masks(network)
    masks.apply_()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert float(masks.sparsity()) == 0.0


def test_sparsity_is_the_share_of_all_weights_without_biases(network: MLP) -> None:
    masks = pruned(network, [6, 32, 4])
    assert [int(zeros) for zeros in masks.zeros()] == [6, 32, 4]
    assert float(masks.sparsity()) == pytest.approx(42 / 104)  # 24 + 64 + 16
    assert masks.shapes == [(8, 3), (8, 8), (2, 8)]


def test_the_fused_forward_sees_masked_weights(network: MLP) -> None:
    pruned(network)
    assert network.plain()
    x = torch.randn(5, 3)
    torch.testing.assert_close(network(x), nn.Sequential(*network)(x))


# ---- storing and copying ------------------------------------------------------------------------------------------


def test_masks_are_stored_and_the_network_is_not(network: MLP) -> None:
    masks = pruned(network)
    assert list(masks.state_dict()) == ["of_0", "of_2", "of_4"]  # the names of the linear layers
    assert list(masks.parameters()) == []
    assert [name for name, _ in masks.named_modules()] == [""]
    twin = Masks(copy.deepcopy(network))
    twin.load_state_dict(masks.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(twin.buffers(), masks.buffers(), strict=True))


def test_masks_of_nested_layers_have_the_layers_names() -> None:
    names = list(Masks(EarlyExitNetwork(3, 2, (4, 4))).state_dict())
    assert names == ["of_stages_1_0", "of_stages_2_0", "of_exits_0", "of_exits_1", "of_exits_2"]


def test_copies_of_network_and_masks_belong_together(network: MLP) -> None:
    masks = pruned(network)
    twin, own = copy.deepcopy((network, masks))
    with torch.no_grad():
        for parameter in (*network.parameters(), *twin.parameters()):
            parameter.fill_(1.0)
    own.apply_()
    assert [int((layer.weight == 0).sum()) for layer in twin.linears] == COUNTS
    assert all(layer.weight.eq(1).all() for layer in network.linears)
    own.prune_smallest([24, 64, 16])
    assert [int(zeros) for zeros in masks.zeros()] == COUNTS


# ---- surgery ------------------------------------------------------------------------------------------------------


def test_after_surgery_masks_have_the_layers_sizes_and_zeros_stay(network: MLP) -> None:
    masks = pruned(network)
    keep = [0, 2, 3, 5, 7]
    before = [mask.clone() for mask in masks._masks().values()]
    first, second, _ = network.linears
    keep_units(first, second, keep)
    masks.follow()
    assert masks.shapes == [tuple(mask.shape) for mask in masks._masks().values()] == [(5, 3), (8, 5), (2, 8)]
    expected = [before[0][keep], before[1][:, keep], before[2]]
    assert all(torch.equal(a, b) for a, b in zip(masks._masks().values(), expected, strict=True))
    assert list(masks.state_dict()) == ["of_0", "of_2", "of_4"]
    with torch.no_grad():
        first.weight.fill_(1.0)
    masks.apply_()
    assert torch.equal(first.weight, expected[0])


def test_following_changes_no_mask_of_a_layer_that_kept_its_size(network: MLP) -> None:
    masks = pruned(network)
    with torch.no_grad():
        network.linears[0].weight.fill_(1.0)  # as between a step and the masks' multiplication
    masks.follow()
    assert [int(zeros) for zeros in masks.zeros()] == COUNTS


# ---- growth on a schedule -----------------------------------------------------------------------------------------


def test_masks_grow_when_it_is_time_and_at_no_other(network: MLP) -> None:
    masks = ScheduledMasks(network, PolynomialSchedule(0.0, 1.0, 0.5), "uniform")
    masks.grow(0.5, due=False)
    assert float(masks.sparsity()) == 0.0
    masks.grow(0.5, due=True)
    # .875 of a half of 24, 64 and 16: 10.5, 28 and 7
    assert [int(zeros) for zeros in masks.zeros()] == [10, 28, 7]


def test_masks_are_complete_at_the_end_even_if_it_is_not_time_then(network: MLP) -> None:
    # Of 100 updates every 50th is due, and the schedule ends with the 80th. At the 50th .875 of 12, 32 and 8 are due.
    masks = ScheduledMasks(network, PolynomialSchedule(0.2, 0.8, 0.5), "uniform")
    sparsities = []
    for update in range(1, 101):
        masks.grow(update / 100, due=update % 50 == 0)
        sparsities.append(float(masks.sparsity()))
    assert sparsities == sorted(sparsities)
    assert sparsities[48:50] == [0.0, pytest.approx((10 + 28 + 7) / 104)]
    assert sparsities[49] == sparsities[78]
    assert sparsities[79:] == [0.5] * 21
    assert [int(zeros) for zeros in masks.zeros()] == COUNTS


def test_complete_masks_are_not_sorted_again(network: MLP, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, calls = ScheduledMasks(network, PolynomialSchedule(0.2, 0.8, 0.5), "erk"), []
    monkeypatch.setattr(masks, "prune_smallest", lambda counts: calls.append(counts))
    for progress in (0.79, 0.8, 0.9, 1.0):
        masks.grow(progress, due=False)
    assert len(calls) == 1


def test_weights_pruned_early_stay_pruned(network: MLP) -> None:
    masks = ScheduledMasks(network, PolynomialSchedule(0.0, 1.0, 0.9), "erk")
    gone = [torch.zeros_like(mask, dtype=torch.bool) for mask in masks._masks().values()]
    for progress in (0.1, 0.3, 0.6, 1.0):
        with torch.no_grad():
            for layer in network.linears:
                layer.weight.normal_()  # the masked weights are not 0 when the masks grow
        masks.grow(progress, due=True)
        now = [mask == 0 for mask in masks._masks().values()]
        assert all(bool((before <= after).all()) for before, after in zip(gone, now, strict=True))
        gone = now
