"""Observations as rows of a network's input, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import gymnasium as gym
import numpy as np

from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.functional.finite import storable


@dataclass(frozen=True)
class Concatenation:
    """From a dictionary of vectors, or of rows, to one vector: ``gymnasium.spaces.flatten``, of a batch too.

    Stable-Baselines3's ``MultiInputPolicy`` puts vectors together in the same order.

    Attributes:
        keys: of the vectors, in their order.
    """

    keys: tuple[str, ...]

    @classmethod
    def of(cls, space: gym.Space) -> Self:
        """Return the one for observations of ``space``.

        Raises:
            SpaceError: anything but a Dict of Boxes of one dimension.
        """
        inner = space.spaces if isinstance(space, gym.spaces.Dict) else {"": space}
        if "" in inner or not all(isinstance(one, gym.spaces.Box) and len(one.shape) == 1 for one in inner.values()):
            raise SpaceError(
                f"observations in {space}: expected a Dict of Boxes of one dimension, each under a name; wrap the "
                "environment in gymnasium.wrappers.FlattenObservation and train there"
            )
        return cls(tuple(inner))

    def __call__(self, observation: Any) -> np.ndarray:
        """Return ``(width,)`` or ``(n, width)`` of vectors ``(own width,)`` or ``(n, own width)`` each.

        Raises:
            SpaceError: no dictionary of such vectors.
        """
        if not isinstance(observation, Mapping) or set(observation) != set(self.keys):
            raise SpaceError(
                f"the observation {observation!r}: expected a dictionary of {', '.join(self.keys)}; pass what the "
                "environment that the policy was made for returns"
            )
        try:
            return np.concatenate([observation[key] for key in self.keys], axis=-1)
        except ValueError as error:
            raise SpaceError(f"the observation {observation!r}: expected vectors, or rows of each ({error})") from error


def checked_rows(
    observation: Any,
    width: int,
    batches: bool = True,
    remedy: str = "pass what the environment that the policy was made for returns",
) -> tuple[np.ndarray, bool]:
    """Return one observation or a batch as float32 rows ``(n, width)``, and whether it was a batch.

    Args:
        observation: shape ``(width,)`` or ``(n, width)``.
        width: of a row.
        batches: whether a batch is taken, too.
        remedy: for messages: what makes rows of other observations.

    Raises:
        SpaceError: it is no array of numbers of these shapes.
        NonFiniteError: NaN, infinity, or a number beyond float32.
    """
    try:
        x = np.asarray(observation, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"the observation {observation!r} is no array of numbers ({error}); {remedy}") from error
    if x.shape[-1:] != (width,) or x.ndim > 1 + batches:
        expected = f"({width},) or (n, {width})" if batches else f"({width},)"
        raise SpaceError(f"an observation of shape {x.shape}: expected {expected}; {remedy}")
    if not storable(x):
        raise NonFiniteError(f"the observation {observation!r} is not finite: expected numbers; mend its source")
    return (x if x.ndim == 2 else x[None]).astype(np.float32), x.ndim == 2


__all__ = ["Concatenation", "checked_rows"]
