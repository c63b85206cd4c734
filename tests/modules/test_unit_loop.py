"""Units are pruned in a loop that somebody else wrote: sizes, optimizers, targets, resuming, refusals."""

import torch
from torch import nn

from budget_wrappers.modules.surgery import keep_units
from budget_wrappers.modules.unit_groups import unit_groups
from budget_wrappers.modules.unit_pruning import UnitPruner, parameters_at_most


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def test_a_layer_is_cut_while_the_graph_of_a_former_loss_is_alive() -> None:
    # A loop's `loss` is alive until the next one is assigned, after the next forward.
    first, second = nn.Linear(3, 6), nn.Linear(6, 1)
    loss = second(first(torch.ones(2, 3))).sum()
    loss.backward()
    keep_units(first, second, [0, 4])
    other = second(first(torch.ones(2, 3))).sum()
    other.backward()
    assert first.weight.grad.shape == (2, 3)
    assert second.weight.grad.shape == (1, 2)


def test_a_run_that_jumps_over_the_learning_ends_at_the_size_asked_for() -> None:
    network = small()
    groups = unit_groups(network, torch.zeros(1, 3))
    pruner = UnitPruner(network, groups, limit=parameters_at_most(41))
    pruner.advance(0.1, 1)
    pruner.advance(1.0, 2)
    assert pruner.stage == "fixed"
    assert pruner.gates.counts() == [8]
