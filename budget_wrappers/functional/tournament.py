"""Choosing among networks that learn side by side: who leads, who wins tournaments, whose place is given away.

Source: "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL" and the adaptive Q-networks that it
builds on. Members are numbered 0 … K − 1. Losses that are not numbers stand for members that have diverged: such a
member wins against none.
"""

from collections.abc import Sequence

import numpy as np

SMALLEST = 1e-6
"""Added to losses before they are inverted: members without any loss yet are equal."""


def champion(losses: np.ndarray) -> int:
    """Return the member of the least loss, the first one of several; of members that have all diverged the first.

    Args:
        losses: of the members, ``(K,)``.
    """
    return int(np.argmin(_comparable(losses)))


def winners(losses: np.ndarray, tournaments: np.ndarray) -> np.ndarray:
    """Return the member of the least loss in each tournament, ``(n,)``, of equal ones that of the lowest number.

    One order decides every tournament, so with M different members in each of them the M − 1 last ones win none.

    Args:
        losses: of the members, ``(K,)``.
        tournaments: members that compete, ``(n, M)``.
    """
    order = np.lexsort((np.arange(len(losses)), _comparable(losses)))
    rank = np.empty(len(losses), dtype=np.int64)
    rank[order] = np.arange(len(losses))
    competing = np.asarray(tournaments, dtype=np.int64)
    return competing[np.arange(len(competing)), rank[competing].argmin(1)]


def draw_tournaments(rng: np.random.Generator, members: int, size: int) -> np.ndarray:
    """Return ``size`` different members for each of K − 1 tournaments, uniformly, ``(K − 1, size)``.

    Args:
        rng: drawn from.
        members: K.
        size: M.
    """
    every = np.tile(np.arange(members), (members - 1, 1))
    return rng.permuted(every, axis=1)[:, :size]


def replacements(selected: Sequence[int], members: int) -> list[tuple[int, int]]:
    """Return ``(place, source)`` of each duplicate: the member ``source`` takes the place of a member nobody selected.

    The first copy of a selected member stays where it is; the others take the free places in ascending order, copies
    of lower members first.

    Args:
        selected: the champion and the winners, K of them.
        members: K.
    """
    counts = np.bincount(np.asarray(selected, dtype=np.int64), minlength=members)
    sources = [member for member in range(members) for _ in range(counts[member] - 1)]
    free = [member for member in range(members) if counts[member] == 0]
    return list(zip(free, sources, strict=True))


def inverse_loss_shares(losses: np.ndarray) -> np.ndarray:
    """Return the probability of each member, ``(K,)``, in proportion to ``1/(L + 1e-6)``.

    A loss that is not finite gets 0; where no loss is finite every member is as likely as the others.

    Args:
        losses: of the members, 0 or more, ``(K,)``.
    """
    losses = np.asarray(losses, dtype=np.float64)
    finite = np.isfinite(losses)
    if not finite.any():
        return np.full(len(losses), 1.0 / len(losses))
    weights = np.where(finite, 1.0 / (np.where(finite, losses, 0.0) + SMALLEST), 0.0)
    return weights / weights.sum()


def _comparable(losses: np.ndarray) -> np.ndarray:
    losses = np.asarray(losses, dtype=np.float64)
    return np.where(np.isnan(losses), np.inf, losses)


__all__ = ["SMALLEST", "champion", "draw_tournaments", "inverse_loss_shares", "replacements", "winners"]
