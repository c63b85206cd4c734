"""What the numbers of a network's last layer mean as an action: ``ActionMap``, plain data.

``B`` rows, ``A`` action size.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from budget_wrappers.arguments import MOST_STEPS, a_count, a_number, an_instance
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.functional.finite import LARGEST

Meaning = Literal["squash", "clip", "argmax"]
"""``"squash"``: ``tanh`` of it, scaled to the bounds (SAC, TD3). ``"clip"``: it, clipped to the bounds (PPO, A2C).
``"argmax"``: the index of the largest (DQN, discrete PPO)."""


@dataclass(frozen=True)
class ActionMap:
    """From what a network says to actions, for networks whose file holds no code.

    Attributes:
        meaning: see ``Meaning``.
        low: ``A`` lower bounds, empty for ``"argmax"``.
        high: ``A`` upper bounds, empty for ``"argmax"``.
        start: of a ``Discrete`` space, the first of its actions.
        dtype: of actions between bounds.

    Raises:
        ConfigError: an unknown meaning, or bounds that do not fit it.
    """

    meaning: Meaning
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    start: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.meaning, str) or self.meaning not in Meaning.__args__:
            raise ConfigError(f"meaning={self.meaning!r}: expected one of {', '.join(Meaning.__args__)}")
        for name in ("low", "high"):
            bounds = an_instance(name, getattr(self, name), tuple | list, "a tuple of numbers")
            object.__setattr__(self, name, tuple(a_number(name, bound) for bound in bounds))
        bounded = len(self.low) == len(self.high) and (len(self.low) > 0) == (self.meaning != "argmax")
        pairs = zip(self.low, self.high, strict=True) if bounded else ()
        if not bounded or not all(-math.inf < low < high < math.inf for low, high in pairs):
            raise ConfigError(
                f"low={self.low}, high={self.high} with meaning={self.meaning!r}: expected as many finite lower bounds "
                "as higher ones above them, none for 'argmax'; RescaleAction makes finite ones"
            )
        a_count("start", self.start, -MOST_STEPS)
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype={self.dtype!r}: expected 'float32' or 'float64'")
        # Actions are made of the bounds and of what lies between them, both in the precision of the network's output.
        sizes = (
            abs(value) for low, high in zip(self.low, self.high, strict=True) for value in (high - low, high + low)
        )
        if max(map(abs, (*self.low, *self.high, *sizes)), default=0.0) > LARGEST:
            raise ConfigError(
                f"low={self.low}, high={self.high}: expected bounds whose sum and difference are finite in float32, at "
                f"most {LARGEST:.3g}, in which the network's output is; RescaleAction makes smaller ones"
            )

    @classmethod
    def of(cls, space: gym.Space, meaning: Meaning | None = None) -> Self:
        """Return the map to ``space``: ``"argmax"`` to a discrete one, ``meaning`` to a box.

        Raises:
            SpaceError: any other space, or a box that is no vector.
            ConfigError: no meaning for a box, as both are usual.
        """
        if isinstance(space, spaces.Discrete):
            return cls("argmax", start=int(space.start))
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise SpaceError(f"{space}: expected a Discrete space or a Box of one dimension; wrap the environment")
        if meaning is None:
            raise ConfigError("meaning=None for a Box: expected 'squash' (SAC, TD3) or 'clip' (PPO); pass it")
        bounds = tuple(map(float, space.low)), tuple(map(float, space.high))
        return cls(meaning, *bounds, dtype=str(space.dtype))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Take back what ``dataclasses.asdict`` made of one.

        Raises:
            ConfigError: other keys, or values that are none of theirs.
        """
        try:
            if data.keys() != {field.name for field in dataclasses.fields(cls)}:
                raise KeyError(", ".join(map(str, data)))
            return cls(**data)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{dict(data)}: expected meaning, low, high, start and dtype ({error!r})") from error

    def compared(self, output: Tensor) -> Tensor:
        """Return what two networks are compared by, differentiable, the shape of ``output``.

        What the environment sees of a continuous action, in units in which its bounds are −1 and 1; the values or
        logits themselves where the action is an index.

        Args:
            output: shape ``(…, outputs)``.
        """
        return self._scaled(output).clamp(-1.0, 1.0) if self.meaning == "clip" else self._scaled(output)

    def difference(self, output: Tensor, wanted: Tensor) -> Tensor:
        """Return ``compared(output) − compared(wanted)`` with a gradient wherever it is not 0, for a loss.

        What lies beyond a bound where it should not is drawn back from where it lies; beyond the bound where it
        belongs it lies well, however far: the environment clips it.

        Args:
            output: of the network that learns, shape ``(…, outputs)``.
            wanted: of the one that teaches; no gradient reaches it.
        """
        aim = self.compared(wanted).detach()
        apart = self._scaled(output) - aim
        if self.meaning != "clip":
            return apart
        return torch.where((aim.abs() == 1.0) & (apart * aim > 0.0), 0.0, apart)

    def _scaled(self, output: Tensor) -> Tensor:
        if self.meaning == "squash":
            return torch.tanh(output)
        if self.meaning == "argmax":
            return output
        middle, half = (self._bounds(sign, output) for sign in (1.0, -1.0))
        return (output - middle) / half

    def _bounds(self, sign: float, like: Tensor) -> Tensor:
        low, high = (like.new_tensor(bounds) for bounds in (self.low, self.high))
        return 0.5 * (high + sign * low)

    def actions(self, output: np.ndarray) -> np.ndarray:
        """Return the actions of rows, ``(B, A)`` or ``(B,)``, as the environment takes them.

        Args:
            output: shape ``(B, outputs)``.
        """
        if self.meaning == "argmax":
            return output.argmax(1) + self.start
        low, high, width = self._box
        if self.meaning == "squash":
            output = low + (np.tanh(output) + 1.0) * 0.5 * width
        # What np.clip does, which takes longer to find out what to do than to do it.
        return np.minimum(np.maximum(output.astype(self.dtype, copy=False), low), high)

    @cached_property
    def _box(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bounds and the width between them, as arrays."""
        low, high = (np.array(bounds, dtype=self.dtype) for bounds in (self.low, self.high))
        return low, high, high - low


__all__ = ["ActionMap", "Meaning"]
