"""Targets and losses against loops over transitions."""

import pytest
import torch
from torch import nn

from agents.nets.mlp import MLP
from agents.nets.td import MovingAverage, entropy_regularised_target, td_target, twin_critic_loss
from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError


def batch_of(reward: list[float], discount: list[float]) -> Batch:
    rows = len(reward)
    empty = torch.zeros(rows, 1)
    index = torch.arange(rows)
    return Batch(empty, empty, torch.tensor(reward), torch.tensor(discount), empty, torch.ones(rows), index)


def test_target_is_cut_by_the_discount_alone():
    # γ = .9; the second transition terminated: y = (1 + .9·5, 2 + 0·5).
    target = td_target(batch_of([1.0, 2.0], [0.9, 0.0]), torch.full((1, 2), 5.0))
    torch.testing.assert_close(target, torch.tensor([[5.5, 2.0]]))


def test_each_head_has_its_own_entropy():
    # y_i = 1 + .5·(4 − .2·log π_i) with log π = (−1, 3): (1 + .5·4.2, 1 + .5·3.4).
    batch = batch_of([1.0], [0.5])
    log_prob = torch.tensor([[-1.0], [3.0]])
    target = entropy_regularised_target(batch, torch.full((2, 1), 4.0), log_prob, torch.tensor(0.2))
    torch.testing.assert_close(target, torch.tensor([[3.1], [2.7]]))


def test_critic_loss_matches_a_loop():
    torch.manual_seed(0)
    values, target = torch.randn(2, 3, 5), torch.randn(3, 5)
    looped = 0.0
    for member in range(2):
        for head in range(3):
            looped += 0.5 * sum(float(values[member, head, row] - target[head, row]) ** 2 for row in range(5)) / 5
    torch.testing.assert_close(twin_critic_loss(values, target), torch.tensor(looped))


def test_moving_average_goes_tau_of_the_way():
    online, target = MLP((2, 3, 1), "relu"), MLP((2, 3, 1), "relu")
    expected = [0.75 * t + 0.25 * o for o, t in zip(online.parameters(), target.parameters(), strict=True)]
    MovingAverage(online, target, 0.25).update()
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter, value)


def test_a_moving_average_follows_layers_that_were_replaced_or_cut_in_place():
    online, target = MLP((2, 3, 1), "relu"), MLP((2, 3, 1), "relu")
    average = MovingAverage(online, target, 0.5)
    online[0], target[0] = nn.Linear(2, 2), nn.Linear(2, 2)  # replaced
    for net in (online, target):
        net[2].weight.data = net[2].weight.data[:, :2]  # cut in place
    average.follow()
    expected = [0.5 * t + 0.5 * o for o, t in zip(online.parameters(), target.parameters(), strict=True)]
    average.update()
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter, value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 4, 1), r"0.weight has the shape \(3, 2\) and in the target network \(4, 2\): expected the same"),
        ((2, 3), r"2.weight has the shape \(1, 3\) and in the target network None: expected the same"),
        ((2, 3, 1, 1), r"4.weight has the shape None and in the target network \(1, 1\): .*change the layers of both"),
    ],
)
def test_a_target_network_of_another_structure_is_refused(sizes: tuple[int, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        MovingAverage(MLP((2, 3, 1), "relu"), MLP(sizes, "relu"), 0.5)
