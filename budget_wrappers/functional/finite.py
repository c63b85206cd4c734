"""Whether numbers are finite in the precision in which they are stored."""

import math

import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that float32 holds, 3.4e38: replays and networks hold float32."""


def finite(numbers: NDArray[np.floating]) -> bool:
    """Return whether every element of a float array is finite; about a microsecond for a few hundred elements."""
    # NaN and infinity survive a sum of squares. Finite elements overflow it from 1.8e19 on: then each is looked at.
    return math.isfinite(np.vdot(numbers, numbers)) or bool(np.isfinite(numbers).all())


def storable(numbers: NDArray, largest: float = LARGEST) -> bool:
    """Return whether every element of an array is a finite number of at most ``largest`` in absolute value.

    A float64 element beyond ``LARGEST`` is finite and becomes infinite when float32 holds it.

    Args:
        numbers: of any real type and shape.
        largest: bound of the absolute value.
    """
    kind = numbers.dtype.kind
    if kind == "f":
        if numbers.size == 1:
            return -largest <= numbers.item() <= largest  # a comparison with NaN is false
        if largest >= 1.0 and np.vdot(numbers, numbers) <= largest:  # no element is above the bound's root
            return True
        return bool((np.abs(numbers) <= largest).all())
    if kind in "iub":
        return largest >= LARGEST or not numbers.size or float(np.abs(numbers.astype(np.float64)).max()) <= largest
    return False


__all__ = ["LARGEST", "finite", "storable"]
