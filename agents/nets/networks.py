"""Actors and critics. ``K`` sub-policies (exits), ``M`` critics, ``B`` rows, ``O`` and ``A`` sizes.

The agents read only these shapes, so an actor with K exits, a critic with K heads or a population of masked critics
replaces the textbook networks without a change to an agent: K and M are leading dimensions, 1 and 2 by default.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.config import Activation, ActorCriticConfig
from agents.nets.mlp import MLP, smallest_value, squared_error
from agents.nets.td import twin_critic_losses

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Moments(NamedTuple):
    """Gaussians before the squash.

    Attributes:
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``, unbounded.
        said: the record of a network that says more, see ``agents.nets.said``; ``None`` of others.
    """

    mean: Tensor
    log_std: Tensor
    said: Any = None

    @classmethod
    def of(cls, said: Any) -> "Moments":
        """Return the moments that an actor said: a pair, or a record whose ``output`` ``(K, B, 2A)`` is both."""
        if type(said) is tuple or not hasattr(said, "output"):
            return cls(*said)
        return cls(*said.output.chunk(2, -1), said)


class SquashedSample(NamedTuple):
    """Actions in [-1, 1] and their log-densities.

    Attributes:
        action: shape ``(K, B, A)``.
        log_prob: shape ``(K, B)``.
    """

    action: Tensor
    log_prob: Tensor


class PolicySample(NamedTuple):
    """Actions that a policy drew.

    Attributes:
        action: in [-1, 1], shape ``(K, B, A)``.
        log_prob: shape ``(K, B)``.
        moments: that they were drawn from.
    """

    action: Tensor
    log_prob: Tensor
    moments: Moments

    def last(self, count: int) -> SquashedSample:
        """Return the samples of the last ``count`` sub-policies: of those that a critic of so many heads values."""
        if count == len(self.action):
            return SquashedSample(self.action, self.log_prob)
        return SquashedSample(self.action[-count:], self.log_prob[-count:])


class _SquashedGaussian(torch.autograd.Function):
    """Reparametrised tanh-Gaussian actions and log-densities with their derivatives written out."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        bounded = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        std = bounded.exp()
        u = torch.addcmul(mean, std, noise)
        action = torch.tanh(u)
        # log(1 − tanh²u) = 2·(log 2 − u − softplus(−2u)) is finite where the squash saturates. With β = −2 torch's
        # softplus(u) is −½·softplus(−2u).
        half_slope = torch.add(u, F.softplus(u, beta=-2.0), alpha=-2.0)
        terms = torch.addcmul(bounded, noise, noise, value=0.5).sub_(half_slope, alpha=2.0)
        ctx.save_for_backward(action, std, noise, log_std)
        constant = noise.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
        return action, torch.rsub(terms.sum(-1), -constant)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_action: Tensor, to_log_prob: Tensor) -> tuple[Tensor, Tensor, None]:
        action, std, noise, log_std = ctx.saved_tensors
        to_log_prob = to_log_prob.unsqueeze(-1)
        # d log π/du = 2·tanh u (the Gaussian part does not depend on the mean once the noise is fixed).
        to_u = torch.addcmul(to_action, to_action * action, action, value=-1.0).addcmul_(to_log_prob, action, value=2.0)
        to_log_std = (to_u * noise).mul_(std).sub_(to_log_prob)
        outside = torch.logical_or(log_std < LOG_STD_MIN, log_std > LOG_STD_MAX)
        return to_u, to_log_std.masked_fill_(outside, 0.0), None


def squashed_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> SquashedSample:
    """Return ``a = tanh(mean + std·noise)`` and its log-density.

    ``log π(a) = Σ_A [log N(u; mean, std) − log(1 − tanh²u)]`` (Haarnoja et al. 2018, appendix C), differentiable once.

    Args:
        mean: shape ``(..., A)``.
        log_std: shape ``(..., A)``; bounded here to ``[LOG_STD_MIN, LOG_STD_MAX]``.
        noise: standard normal, shape ``(..., A)``.
    """
    return SquashedSample(*_SquashedGaussian.apply(mean, log_std, noise))


class GaussianActor(nn.Module):
    """A squashed Gaussian policy with one trunk and two heads, which run as one product.

    ``FLOPs = 2·(O·H + H·H + 2·H·A)`` for two hidden layers of H: both heads are counted because both run.
    """

    exits = 1
    static_flops = True

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.net = MLP([observation_size, *hidden, 2 * action_size], activation)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and unbounded log standard deviation, each ``(1, B, A)``, for ``observation`` ``(B, O)``."""
        mean, log_std = self.net(observation).unsqueeze(0).chunk(2, -1)
        return mean, log_std


class DeterministicActor(nn.Module):
    """``a = tanh(net(s))``."""

    exits = 1
    static_flops = True

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.net = MLP([observation_size, *hidden, action_size], activation)

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions ``(1, B, A)`` in [-1, 1] for ``observation`` ``(B, O)``."""
        return torch.tanh(self.net(observation)).unsqueeze(0)


class Critic(nn.Module):
    """M action-value networks of K heads each: head i values continuing with sub-policy i.

    A critic that is given in its place, such as a population of which some members judge, has to meet this protocol:

    - ``heads``: K. An agent passes the last K actions where there are more sub-policies.
    - ``losses(observation, action, target)``: a loss for each member and head, ``(M, K)``; M is the critic's own
      matter. Its gradients update the parameters.
    - ``squared_error(observation, action, target)``: their sum, asked for where no method alters them.
    - ``of_own_actions(observation, action)``: every member's values ``(M, K, B)``, which a loss may update.
    - ``smallest_of_own_actions(observation, action)``: what the members that judge say together, ``(K, B)``,
      differentiable in the actions alone. Called on the target critic it values the next state.
    - ``first_of_own_actions(observation, action)``: what one of them says, the same.

    A pass of the first three is updated; a pass of the last two is not, see ``agents.nets.said``.

    Args:
        observation_size: O.
        action_size: A.
        hidden: widths of the hidden layers.
        activation: between layers.
        members: M, 2 for the twins of SAC and TD3.
        heads: K.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        activation: Activation,
        members: int = 2,
        heads: int = 1,
    ) -> None:
        super().__init__()
        sizes = [observation_size + action_size, *hidden, heads]
        self.members = nn.ModuleList(MLP(sizes, activation) for _ in range(members))
        self.heads = heads

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return every head's value of one action a row: ``(M, K, B)`` for ``(B, O)`` and ``(B, A)``."""
        x = torch.cat([observation, action], 1)
        return torch.stack([member(x).t() for member in self.members])

    def of_own_actions(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return head i's value of sub-policy i's action: ``(M, K, B)`` for ``(B, O)`` and ``(K, B, A)``."""
        if self.heads == 1:
            return self(observation, action[0])
        x = torch.cat([observation.expand(self.heads, -1, -1), action], -1)
        values = torch.stack([member(x) for member in self.members])
        return values.diagonal(dim1=1, dim2=3).transpose(1, 2)

    def squared_error(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return ``½ Σ_m Σ_i mean_B (Q_{m,i}(s, a) − y_i)²``, differentiable in the critics' parameters alone.

        Args:
            observation: shape ``(B, O)``.
            action: shape ``(B, A)``.
            target: every head's y, shape ``(K, B)``.
        """
        return squared_error(self.members, torch.cat([observation, action], 1), target.t())

    def losses(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return ``½ mean_B (Q_{m,i}(s, a) − y_i)²`` of every member and head, ``(M, K)``; see ``squared_error``."""
        return twin_critic_losses(self(observation, action), target)

    def smallest_of_own_actions(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return ``min_m Q_{m,i}(s, a_i)``, ``(K, B)``, differentiable in ``action`` ``(K, B, A)`` alone.

        A critic of one head values the actions of any number of sub-policies.
        """
        return smallest_value(self.members, observation, action)

    def first_of_own_actions(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return ``Q_{1,i}(s, a_i)``, ``(K, B)``, differentiable in ``action`` ``(K, B, A)`` alone."""
        return smallest_value(self.members[:1], observation, action)


def textbook_critic(observation_size: int, action_size: int, config: ActorCriticConfig) -> Critic:
    """Return the twin critic of one head that ``config`` describes."""
    return Critic(observation_size, action_size, config.critic_widths, config.activation)
