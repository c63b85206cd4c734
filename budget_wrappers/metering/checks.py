"""Checks that several parts of metering share."""

from numbers import Integral
from typing import Any, get_args

import numpy as np

from budget_wrappers.core import Convention, Unknown
from budget_wrappers.errors import ConfigError, CostError

CONVENTIONS: tuple[Convention, ...] = ("matmul", "all")


def check_convention(convention: str) -> Convention:
    """Return ``convention``; raises ConfigError for any but ``"matmul"`` and ``"all"``."""
    for known in CONVENTIONS:
        if convention == known:
            return known
    raise ConfigError(f"convention={convention!r}; expected one of {', '.join(map(repr, CONVENTIONS))}")


def check_unknown(unknown: str) -> Unknown:
    """Return ``unknown``; raises ConfigError for any but ``"raise"`` and ``"warn"``."""
    for known in get_args(Unknown):
        if unknown == known:
            return known
    raise ConfigError(f"unknown={unknown!r}; expected one of {', '.join(map(repr, get_args(Unknown)))}")


def whole(value: Any, what: str) -> int:
    """Return ``value`` as an ``int`` of at least 0; raises CostError, naming ``what``, for anything else."""
    # A float is welcome where it is whole; NaN and infinity are not.
    if not (isinstance(value, Integral) or (isinstance(value, (float, np.floating)) and value.is_integer())):
        raise CostError(f"{what}={value!r} of type {type(value).__name__}; expected a whole number of at least 0")
    if value < 0:
        raise CostError(f"{what}={value}; expected at least 0")
    return int(value)
