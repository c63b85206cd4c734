"""Replay of options, which last several steps each, and of several replays as one."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from agents.replay.buffers import Batch, ReplayBuffer
from budget_wrappers.functional.options import DiscountExponent, option_discount


class OptionReplay:
    """A replay in which each transition bootstraps with ``γⁿ`` of its own duration ``n``.

    Everything else (the ring, uniform or prioritized draws) is the replay's that is given.

    Args:
        replay: of one-step transitions.
        exponent: see ``budget_wrappers.functional.options.DiscountExponent``.
    """

    def __init__(self, replay: ReplayBuffer, exponent: DiscountExponent) -> None:
        self.replay, self.exponent = replay, exponent
        self.duration = torch.ones(replay.capacity, device=replay.device)

    @property
    def beta(self) -> float:
        """Exponent of the importance weights, where draws are prioritized."""
        return self.replay.beta

    @beta.setter
    def beta(self, value: float) -> None:
        self.replay.beta = value

    def __len__(self) -> int:
        """Return the number of options held."""
        return len(self.replay)

    def add_option(
        self,
        observation: np.ndarray,
        option: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        duration: int,
    ) -> None:
        """Store one option, which really lasted ``duration`` steps; otherwise see ``ReplayBuffer.add``."""
        place = self.replay.position
        self.replay.add(observation, option, reward, next_observation, terminated, truncated)
        self.duration[place] = duration

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return ``batch_size`` options; ``discount`` is ``γⁿ·(1 − terminated)``, or with γ where so configured."""
        batch = self.replay.sample(batch_size, generator)
        terminated = self.replay.terminated[batch.index]
        discount = option_discount(self.replay.gamma, self.duration[batch.index], terminated, self.exponent)
        return batch._replace(discount=discount)

    def update_priorities(self, index: Tensor, error: Tensor) -> None:
        """Set the priorities of the options at ``index``, where draws are prioritized."""
        self.replay.update_priorities(index, error)

    def forget_unfinished(self) -> None:
        """Close every open episode."""
        self.replay.forget_unfinished()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the replay's state and the durations."""
        return {**self.replay.state_dict(), "duration": self.duration[: len(self.replay)]}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self.replay.load_state_dict({key: value for key, value in state.items() if key != "duration"})
        self.duration[: len(self.replay)] = state["duration"]


class Replays:
    """Several replays under one name each, for what treats an agent's replays alike: checkpoints and resets.

    Args:
        replays: name -> replay.
    """

    def __init__(self, replays: Mapping[str, ReplayBuffer | OptionReplay]) -> None:
        self.replays = dict(replays)

    def forget_unfinished(self) -> None:
        """Close every open episode."""
        for replay in self.replays.values():
            replay.forget_unfinished()

    def state_dict(self) -> dict[str, Tensor]:
        """Return every replay's state, ``<name>/<key>``."""
        return {
            f"{name}/{key}": value
            for name, replay in self.replays.items()
            for key, value in replay.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        for name, replay in self.replays.items():
            own = {key: value for key, value in state.items() if key.startswith(f"{name}/")}
            replay.load_state_dict({key.removeprefix(f"{name}/"): value for key, value in own.items()})
