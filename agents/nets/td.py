"""Temporal-difference targets and losses over leading dimensions ``M`` (critics) and ``K`` (sub-policies)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError


def td_target(batch: Batch, next_value: Tensor) -> Tensor:
    """Return ``y = R + γⁿ(1 − terminated)·V(s')``, the shape of ``next_value`` ``(..., B)``."""
    return torch.addcmul(batch.reward, batch.discount, next_value)


def entropy_regularised_target(batch: Batch, next_value: Tensor, log_prob: Tensor, ent_coef: Tensor) -> Tensor:
    """Return ``y_i = R + γⁿ(1 − terminated)·(min_m Q̄_{m,i}(s', a'_i) − α·log π_i(a'_i|s'))``, ``(K, B)``.

    Args:
        batch: rewards and discounts, ``(B,)`` each.
        next_value: ``min_m Q̄_{m,i}``, shape ``(K, B)``.
        log_prob: shape ``(K, B)``.
        ent_coef: α, a scalar tensor.
    """
    return td_target(batch, next_value - ent_coef * log_prob)


def twin_critic_losses(values: Tensor, target: Tensor) -> Tensor:
    """Return ``½ mean_B (Q_{m,i} − y_i)²`` of every critic and head, ``(M, K)``; ``twin_critic_loss`` is their sum."""
    return 0.5 * (values - target).square().mean(-1)


def twin_critic_loss(values: Tensor, target: Tensor) -> Tensor:
    """Return ``½ Σ_m Σ_i mean_B (Q_{m,i} − y_i)²``.

    Args:
        values: shape ``(M, K, B)``.
        target: shape ``(K, B)``.
    """
    return F.mse_loss(values, target.expand_as(values), reduction="sum") * (0.5 / values.shape[-1])


class MovingAverage:
    """A target network's ``θ̄ ← (1 − τ)·θ̄ + τ·θ``.

    Args:
        online: the network that learns.
        target: the network that follows, of the same structure.
        tau: τ, 1 for a copy.

    Attributes:
        online, target, tau: as given.
    """

    def __init__(self, online: nn.Module, target: nn.Module, tau: float) -> None:
        self.online, self.target, self.tau = online, target, tau
        self.follow()

    def follow(self) -> None:
        """Look up the parameters of both networks anew, after their layers have changed size.

        Raises:
            ConfigError: the two have layers of different sizes.
        """
        online, target = dict(self.online.named_parameters()), dict(self.target.named_parameters())
        for name in {**online, **target}:
            shapes = [tuple(own[name].shape) if name in own else None for own in (online, target)]
            if shapes[0] != shapes[1]:
                raise ConfigError(
                    f"{name} has the shape {shapes[0]} and in the target network {shapes[1]}: expected the same; "
                    "change the layers of both"
                )
        # The parameters, not their data of now: what a parameter shows may be elsewhere at the next update.
        self.move(list(online.values()), [target[name] for name in online])

    def move(self, online: Sequence[Tensor], target: Sequence[Tensor]) -> None:
        """Move these tensors in place of the networks' parameters, until ``follow``: those of all members, say."""
        self._online, self._target = list(online), list(target)

    @torch.no_grad()
    def update(self) -> None:
        """Move the target once, in place."""
        torch._foreach_lerp_(self._target, self._online, self.tau)
