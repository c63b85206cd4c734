"""Observations as rows of a network's input, checked."""

from typing import Any

import numpy as np

from budget_wrappers.errors import NonFiniteError, SpaceError


def rows_of(
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
    if not (np.abs(x) <= np.finfo(np.float32).max).all():
        raise NonFiniteError(f"the observation {observation!r} is not finite: expected numbers; mend its source")
    return (x if x.ndim == 2 else x[None]).astype(np.float32), x.ndim == 2


__all__ = ["rows_of"]
