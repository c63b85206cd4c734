"""Prioritized experience replay (Schaul et al. 2016), proportional variant, on a sum tree.

``P(i) = p_iᵃ / Σ_k p_kᵃ`` and ``w_i = (N·P(i))^{−β} / max_j w_j``, the maximum over the batch. The tree is one
array: node ``n`` has the children ``2n`` and ``2n + 1``, the leaves are the places of the ring. Drawing and updating
walk all rows of a batch down or up one level at a time.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.replay.buffers import Batch, ReplayBuffer
from budget_wrappers.arguments import a_number
from budget_wrappers.errors import NonFiniteError


class SumTree:
    """Non-negative numbers with their sums over every aligned power-of-two range.

    Args:
        size: how many numbers.
    """

    def __init__(self, size: int) -> None:
        self.leaves = 1 << max(size - 1, 0).bit_length()
        self.depth = self.leaves.bit_length() - 1
        self.nodes = np.zeros(2 * self.leaves)

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self.nodes[1])

    def set(self, index: np.ndarray, value: np.ndarray) -> None:
        """Set the numbers at ``index`` ``(n,)`` to ``value`` ``(n,)``; of equal indices the last one counts."""
        node = index + self.leaves
        self.nodes[node] = value
        for _ in range(self.depth):
            node = node >> 1
            # Summed anew rather than shifted by a difference: rounding errors do not pile up.
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def set_one(self, index: int, value: float) -> None:
        """Set one number; a scalar walk is several times faster than one of arrays of length 1."""
        nodes, node = self.nodes, index + self.leaves
        nodes[node] = value
        while node > 1:
            node >>= 1
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1]

    def get(self, index: np.ndarray) -> np.ndarray:
        """Return the numbers at ``index``."""
        return self.nodes[index + self.leaves]

    def index_at(self, mass: np.ndarray) -> np.ndarray:
        """Return for each ``mass`` in ``[0, total)`` the index whose range of the running sum holds it."""
        node, mass = np.ones(len(mass), dtype=np.int64), mass.copy()
        for _ in range(self.depth):
            left = 2 * node
            weight = self.nodes[left]
            # Never into an empty half, even where rounding left mass beyond the other one.
            right = (mass >= weight) & (self.nodes[left + 1] > 0)
            mass -= np.where(right, weight, 0.0)
            node = left + right
        return node - self.leaves


class PrioritizedReplay(ReplayBuffer):
    """A ring of transitions, sampled in proportion to a power of their last temporal-difference error.

    New transitions get the highest priority seen so far, so each is drawn soon. Draws are stratified: the b-th of B
    comes from the b-th of B equal parts of the total priority.

    Args:
        capacity, observation_shape, action_shape, settings: see ``ReplayBuffer``.
        alpha: exponent a, 0 for uniform draws.
        beta: exponent β of the importance weights; the agent anneals it to 1.
        floor: added to the absolute error, so that nothing is never drawn again.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        floor: float = 1e-6,
        **settings: Any,
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            a_number(name, value, "an exponent in [0, 1]", lambda number: 0 <= number <= 1)
        a_number("floor", floor, "a number of at least 0", lambda number: number >= 0)
        super().__init__(capacity, observation_shape, action_shape, **settings)
        self.alpha, self.beta, self.floor = alpha, beta, floor
        self.tree, self.highest = SumTree(capacity), 1.0

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        streams: Sequence[int] = (0,),
    ) -> None:
        """Store ``n`` transitions; see ``ReplayBuffer.add``."""
        first = self.position
        super().add(observation, action, reward, next_observation, terminated, truncated, streams)
        priority = self.highest**self.alpha
        for row in range(len(streams)):
            self.tree.set_one((first + row) % self.capacity, priority)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return ``batch_size`` transitions with their importance weights."""
        uniform = torch.rand(batch_size, generator=generator, device=self.device, dtype=torch.float64).cpu().numpy()
        place = self.tree.index_at((np.arange(batch_size) + uniform) * (self.tree.total / batch_size))
        weight = (self.size * self.tree.get(place) / self.tree.total) ** -self.beta
        weight = torch.as_tensor((weight / weight.max()).astype(np.float32), device=self.device)
        return self.gather(torch.from_numpy(place).to(self.device), weight)

    def update_priorities(self, index: Tensor, error: Tensor) -> None:
        """Set the priorities of the transitions at ``index`` from their errors, both ``(B,)``.

        Raises:
            NonFiniteError: an error that is NaN or infinite, which would make every later draw the same.
        """
        priority = error.detach().abs().double().cpu().numpy() + self.floor
        highest = float(priority.max())
        if not math.isfinite(highest):
            raise NonFiniteError(
                f"a temporal-difference error is {highest}: expected finite numbers. Training has diverged: lower "
                "learning_rate or reward_scale, and go on from an earlier checkpoint"
            )
        self.highest = max(self.highest, highest)
        self.tree.set(index.cpu().numpy(), priority**self.alpha)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the filled part of every array, the priorities and the position."""
        priority = torch.from_numpy(self.tree.get(np.arange(self.size)))
        return {
            **super().state_dict(),
            "priority": priority,
            "highest": torch.tensor([self.highest], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.highest = float(state["highest"])
        self.tree = SumTree(self.capacity)
        self.tree.set(np.arange(self.size), state["priority"].numpy())
