"""Hindsight for options: what a master would have earned, had it been asked for a goal that was reached later.

An option lasts several steps, and the environment pays for each. Under another goal ``g`` its reward is
``Σ r(achieved, g)`` over the steps it lasted, less the same price of compute. So the goal achieved after every single
step is kept beside the option, not only the last one.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.replay.buffers import require_storable
from agents.replay.hindsight import HindsightReplay, require_payable
from budget_wrappers.wrappers.options import PrimitiveTransition


class OptionTrace:
    """What the steps of the running option achieved and earned; a subscriber of ``SubPolicyAction``."""

    def __init__(self) -> None:
        self._after: Any = None
        self._reached: list[np.ndarray] = []
        self._earned = 0.0

    def __call__(self, step: PrimitiveTransition) -> None:
        """Note one step; an option that was broken off by an exception and a reset is forgotten."""
        if step.observation is not self._after:
            self._forget()
        self._after = step.next_observation
        self._reached.append(np.array(step.next_observation["achieved_goal"], dtype=np.float32))
        self._earned += step.reward

    def take(self) -> tuple[np.ndarray, float]:
        """Return the goals achieved ``(n, G)`` and the sum of rewards since the last call, and begin anew."""
        reached, earned = np.stack(self._reached), self._earned
        self._forget()
        return reached, earned

    def _forget(self) -> None:
        self._reached, self._earned = [], 0.0


class HindsightOptions(HindsightReplay):
    """``HindsightReplay`` of options; a goal is one that was achieved at the end of a later option of the episode.

    Args:
        capacity, observation_shape, goals, reward_of, relabelled, settings: see ``HindsightReplay``.
        trace: of the options that are stored.
        longest: steps that an option lasts at most.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        *rest: Any,
        trace: OptionTrace,
        longest: int,
        **settings: Any,
    ) -> None:
        super().__init__(capacity, observation_shape, (), *rest, discrete=True, **settings)
        self.trace = trace
        width = self.goals.achieved.stop - self.goals.achieved.start
        self.reached = torch.zeros((capacity, longest, width), device=self.device)
        self.lasted = torch.zeros(capacity, dtype=torch.int64, device=self.device)
        self.price = torch.zeros(capacity, device=self.device)

    def add(self, observation: np.ndarray, action: np.ndarray, reward: np.ndarray, *rest: Any) -> None:
        """Store the option that the trace has followed; see ``ReplayBuffer.add``."""
        reached, earned = self.trace.take()
        where = f"of transition {self._added}"
        require_storable("goal achieved", reached, where)
        require_storable("price of compute", np.array([earned - float(reward[0])]), where)
        self.require_storable(observation, action, reward, rest[0])
        place = self.position
        self.reached[place, : len(reached)] = torch.from_numpy(reached)
        self.lasted[place] = len(reached)
        self.price[place] = earned - float(reward[0])
        super().add(observation, action, reward, *rest)

    def rewards_under(self, index: Tensor, goal: Tensor) -> Tensor:
        """Return ``Σ r(achieved, goal) − price`` of the options at ``index``, over the steps that each lasted.

        Raises:
            NonFiniteError: a sum above ``largest_reward``.
        """
        steps = torch.arange(self.reached.shape[1], device=self.device) < self.lasted[index, None]
        option = torch.arange(len(index), device=self.device)[:, None].expand_as(steps)[steps]
        each = self.reward_of(self.reached[index][steps].cpu().numpy(), goal[option].cpu().numpy())
        total = torch.zeros(len(index), device=self.device)
        total = total.index_add(0, option, torch.as_tensor(each, device=self.device)) - self.price[index]
        require_payable(total.cpu().numpy(), self.largest_reward, " over the steps of options")
        return total

    def state_dict(self) -> dict[str, Tensor]:
        """Return the filled part of every array. Open episodes are closed."""
        own = {name: getattr(self, name)[: self.size] for name in ("reached", "lasted", "price")}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        super().load_state_dict(state)
        for name in ("reached", "lasted", "price"):
            getattr(self, name)[: self.size] = state[name]
