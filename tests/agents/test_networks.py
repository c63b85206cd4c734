"""Actors and critics: densities, leading dimensions and published sizes."""

import pytest
import torch

from agents.nets.networks import Critic, DeterministicActor, GaussianActor, squashed_gaussian
from budget_wrappers import count_flops


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_log_prob_is_the_density_at_the_given_action_matches_oracle():
    torch.manual_seed(0)
    mean, log_std, noise = draw(2, 5, 3), 0.3 * draw(2, 5, 3), draw(2, 5, 3)
    sample = squashed_gaussian(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squash = torch.distributions.transforms.TanhTransform()
    oracle = torch.distributions.TransformedDistribution(normal, [squash]).log_prob(sample.action).sum(-1)
    torch.testing.assert_close(sample.log_prob, oracle)


def test_density_of_a_saturated_action_is_finite():
    sample = squashed_gaussian(torch.full((1, 1, 1), 40.0), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert sample.action.item() == 1.0
    assert torch.isfinite(sample.log_prob).all()


def test_log_std_is_bounded_and_has_no_gradient_outside():
    log_std = torch.tensor([[[-30.0, 0.0, 5.0]]], dtype=torch.float64, requires_grad=True)
    mean, noise = torch.zeros(1, 1, 3, dtype=torch.float64), torch.full((1, 1, 3), 0.5, dtype=torch.float64)
    sample = squashed_gaussian(mean, log_std, noise)
    bounded = squashed_gaussian(mean, log_std.detach().clamp(-20.0, 2.0), noise)
    torch.testing.assert_close(sample.log_prob, bounded.log_prob)
    (gradient,) = torch.autograd.grad(sample.action.sum() + sample.log_prob.sum(), log_std)
    assert gradient[0, 0, 0] == 0 and gradient[0, 0, 1] != 0 and gradient[0, 0, 2] == 0


def test_derivatives_of_sample_and_density_match_oracle():
    torch.manual_seed(0)
    noise = draw(1, 4, 3)
    mean, log_std = draw(1, 4, 3).requires_grad_(), (0.3 * draw(1, 4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: tuple(squashed_gaussian(m, s, noise)), (mean, log_std))


@pytest.mark.parametrize(
    ("observation", "action", "hidden", "published"),
    [(2, 1, 64, 8_704), (24, 6, 64, 12_800)],
    ids=["MountainCarContinuous", "walker-stand"],
)
def test_flops_of_the_gaussian_actor_are_the_published_ones(observation, action, hidden, published):
    actor = GaussianActor(observation, action, (hidden, hidden), "tanh")
    assert count_flops(actor, torch.zeros(1, observation)) == published
    # 2·(O·H + H·H + 2·H·A): both heads run, both count.
    assert published == 2 * (observation * hidden + hidden * hidden + 2 * hidden * action)


def test_actors_put_sub_policies_first():
    observation = torch.zeros(5, 3)
    mean, log_std = GaussianActor(3, 2, (8,), "relu")(observation)
    assert mean.shape == log_std.shape == DeterministicActor(3, 2, (8,), "relu")(observation).shape == (1, 5, 2)


@pytest.mark.parametrize("heads", [1, 3])
def test_each_head_values_its_own_action(heads):
    torch.manual_seed(0)
    critic = Critic(3, 2, (8, 8), "relu", members=2, heads=heads)
    observation, action = torch.randn(5, 3), torch.randn(heads, 5, 2)
    own = critic.of_own_actions(observation, action)
    assert own.shape == (2, heads, 5)
    for head in range(heads):
        torch.testing.assert_close(own[:, head], critic(observation, action[head])[:, head])
    torch.testing.assert_close(critic.smallest_of_own_actions(observation, action), own.amin(0))
    torch.testing.assert_close(critic.first_of_own_actions(observation, action), own[0])


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("value", ["smallest_of_own_actions", "first_of_own_actions"])
def test_values_for_the_actor_give_the_critic_no_gradient(heads, value):
    critic = Critic(3, 2, (8, 8), "relu", heads=heads)
    action = torch.randn(heads, 5, 2, requires_grad=True)
    getattr(critic, value)(torch.randn(5, 3), action).sum().backward()
    assert action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
