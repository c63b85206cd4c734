"""Units are pruned in a loop that somebody else wrote: sizes, optimizers, targets, resuming, refusals."""

import torch
from torch import nn

from budget_wrappers.modules.surgery import keep_units


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
