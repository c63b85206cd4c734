"""Gates of early exits: what they should say, what a mixture of exits they make, and how far off they are.

``B`` states, ``K`` exits, ``p_i`` the probability that gate i opens once it is asked, ``p_K = 1``. The share of exit i
is ``α_i = p_i·Π_{j<i}(1 − p_j)``. Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks".
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from budget_wrappers.errors import ConfigError

GateLoss = Literal["per_gate", "mixture"]
"""``"per_gate"``: every gate's cross-entropy counts alike. ``"mixture"``: in proportion to how often it is asked."""

LEAST_SHARE = 0.01
"""Of exits that a budget of 0 or 1 leaves to chance, so that a gate can still learn to say otherwise."""


def mixture_weights(p: Tensor) -> Tensor:
    """Return ``α_i = p_i·Π_{j<i}(1 − p_j)``.

    Args:
        p: shape ``(..., K)``; the last is read as 1, as there is no further exit.

    Returns:
        Shape ``(..., K)``, each row summing to 1.
    """
    stayed = torch.cumprod(1 - p[..., :-1], dim=-1)
    reach = torch.cat([torch.ones_like(p[..., :1]), stayed], dim=-1)
    return torch.cat([p[..., :-1], torch.ones_like(p[..., :1])], dim=-1) * reach


def budget_log_odds(budget: Tensor) -> Tensor:
    """Return ``log(b/(1 − b))``, of budgets no closer to 0 and 1 than ``LEAST_SHARE``.

    What a gate's logit has taken off to open with probability 1 − b: the share of the first of two exits that costs b
    in the mean, and what every gate tends to where b reaches an end.

    Args:
        budget: any shape; numbers outside [0, 1] count as its ends.
    """
    return torch.logit(budget, LEAST_SHARE)


def reach_of(alpha: Tensor) -> Tensor:
    """Return ``Σ_{j≥i} α_j``, shape ``(..., K)``: how often gate i is asked."""
    return alpha.flip(-1).cumsum(-1).flip(-1)


def gate_probabilities(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gates that make the mixture α, ``p_i = α_i / Σ_{j≥i} α_j``, and which of them are ever asked.

    Args:
        alpha: shape ``(..., K)``, non-negative, each row summing to 1.

    Returns:
        p and a boolean, both ``(..., K)``. Where a gate is never asked p is 0, which means nothing.
    """
    reach = reach_of(alpha)
    reachable = reach > 0
    return torch.where(reachable, alpha / reach.masked_fill(~reachable, 1.0), 0.0), reachable


def gate_losses(logits: Tensor, alpha: Tensor, kind: GateLoss = "per_gate") -> Tensor:
    """Return how far each gate is from making the mixture α: binary cross-entropies, mean over states.

    ``"mixture"`` weighs each gate by how often it is asked, which makes the sum ``−Σ_i α_i·log α̂_i`` for the mixture
    α̂ that the gates make: the best fit then has the mean mixture of the targets, and so its mean cost.

    Args:
        logits: of all gates but the last exit, which has none, ``(B, K − 1)``.
        alpha: the target, ``(B, K)``; no gradient reaches it.
        kind: see ``GateLoss``.

    Returns:
        Shape ``(K − 1,)``. A state that never asks a gate adds neither a number nor a gradient to it.

    Raises:
        ConfigError: an unknown kind.
    """
    target, reachable = gate_probabilities(alpha.detach())
    if kind == "per_gate":
        weight = reachable.to(logits)
    elif kind == "mixture":
        weight = reach_of(alpha.detach())
    else:
        raise ConfigError(f"gate_loss={kind!r}: expected 'per_gate' or 'mixture'")
    each = F.binary_cross_entropy_with_logits(logits, target[:, :-1], weight[:, :-1], reduction="none")
    return each.mean(0)


def gate_loss(logits: Tensor, alpha: Tensor, kind: GateLoss = "per_gate") -> Tensor:
    """Return the sum over gates of ``gate_losses``, a scalar."""
    return gate_losses(logits, alpha, kind).sum()


def choice_information(alpha: Tensor) -> Tensor:
    """Return ``H(mean_B α) − mean_B H(α(s))`` in nats: how much which exit acts tells about the state.

    It is the mutual information between the state and the exit that acts. 0: every state has the same mixture, a coin
    that does not look at the state. At most ``log K``: each state has one exit, and all exits act equally often.

    Args:
        alpha: mixture of the exits in each state, ``(B, K)``, each row non-negative and summing to 1.

    Returns:
        A scalar, 0 or more; rounding never makes it negative.

    Raises:
        ConfigError: ``alpha`` has another shape, or no state.
    """
    if alpha.ndim != 2 or not alpha.numel():
        raise ConfigError(
            f"alpha has shape {tuple(alpha.shape)}: expected (B, K), mixtures of at least one state; add the dimension "
            "that is missing, or leave the call out where there is no batch"
        )
    of_the_mean, mean_of_all = torch.special.entr(alpha.mean(0)).sum(), torch.special.entr(alpha).sum(1).mean()
    return (of_the_mean - mean_of_all).clamp_min(0.0)


def one_hot(exit_index: Tensor, exits: int, like: Tensor) -> Tensor:
    """Return α that always uses one exit a state, ``(B, K)``, for ``exit_index`` ``(B,)``."""
    return F.one_hot(exit_index, exits).to(like)


def first_good_enough(values: Tensor, threshold: Tensor) -> Tensor:
    """Return α of the earliest exit whose value reaches ``threshold``, or of the last one where none does.

    With the last exit's value as the threshold this is the gate training called "advantage" in the publication.

    Args:
        values: v, shape ``(B, K)``.
        threshold: shape ``(B, 1)`` or a scalar.
    """
    enough = values >= threshold
    enough[:, -1] = True
    return one_hot(enough.float().argmax(1), values.shape[1], values)


def softmax_mixture(values: Tensor, temperature: float) -> Tensor:
    """Return ``α = softmax(v / T)``, shape ``(B, K)``: what an exit is worth decides, whatever it costs.

    Raises:
        ConfigError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"gate_temperature={temperature!r}: expected a number above 0, such as 1")
    return torch.softmax(values / temperature, dim=1)


__all__ = [
    "GateLoss",
    "choice_information",
    "first_good_enough",
    "gate_loss",
    "gate_losses",
    "gate_probabilities",
    "mixture_weights",
    "one_hot",
    "reach_of",
    "softmax_mixture",
]
