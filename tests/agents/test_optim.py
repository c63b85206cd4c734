"""The lean Adam against torch's."""

import copy

import pytest
import torch

from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam, clipped


def step(optimizer: torch.optim.Optimizer, net: MLP, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()


@pytest.fixture
def nets():
    torch.manual_seed(0)
    net = MLP((3, 8, 2), "relu")
    return net, copy.deepcopy(net)


def test_twenty_steps_match_oracle_to_the_bit(nets):
    ours, theirs = nets
    own, oracle = FusedAdam(ours.parameters(), lr=1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for _ in range(20):
        x = torch.randn(5, 3)
        own.descend(ours(x).square().sum())
        step(oracle, theirs, x)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_state_goes_through_a_state_dict_to_the_bit(nets):
    net, twin = nets
    optimizer, x = FusedAdam(net.parameters(), lr=1e-2), torch.randn(5, 3)
    step(optimizer, net, x)
    twin.load_state_dict(net.state_dict())
    resumed = FusedAdam(twin.parameters(), lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(optimizer, net, x)
        step(resumed, twin, x)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_gradient_of_any_layout_is_read_right():
    # x·W gives W's gradient in its own layout, Wᵀ·y in the other; a sum gives one with stride 0.
    ours = torch.nn.Parameter(torch.randn(3, 4))
    theirs = torch.nn.Parameter(ours.detach().clone())
    own, peer = FusedAdam([ours], lr=1e-2), torch.optim.Adam([theirs], lr=1e-2)
    x, y = torch.randn(5, 3), torch.randn(5, 4)
    for loss in (lambda w: (x @ w).square().sum(), lambda w: (y @ w.t()).square().sum(), lambda w: w.sum()):
        own.descend(loss(ours))
        peer.zero_grad()
        loss(theirs).backward()
        peer.step()
        torch.testing.assert_close(ours, theirs)


def test_long_gradient_is_cut_to_the_limit_and_the_original_left():
    gradients = [torch.full((2, 3), 4.0), torch.full((3,), -3.0)]
    length = torch.stack([part.norm() for part in clipped(gradients, 0.5)]).norm()
    assert length.item() == pytest.approx(0.5, rel=1e-5)
    assert gradients[0].eq(4.0).all()


def test_short_gradient_is_not_stretched():
    gradients = [torch.full((2, 3), 4.0), torch.full((3,), -3.0)]
    assert all(torch.equal(a, b) for a, b in zip(gradients, clipped(gradients, 100.0), strict=True))
