"""Checks of arguments that every constructor shares: each returns the value as plain Python or raises ConfigError.

Each raises with the argument's name, the value that was received and what was expected.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NoReturn, TypeVar

import numpy as np

from budget_wrappers.errors import ConfigError

MOST_STEPS = 2**31 - 1
"""The most steps, calls, rows or transitions of anything: more fit no memory and no day."""
Value = TypeVar("Value")


def refuse(name: str, value: Any, expected: str) -> NoReturn:
    """Raise ConfigError for an argument."""
    said = repr(value)
    said = said if len(said) <= 200 else f"{said[:200]}…"
    raise ConfigError(f"{name}={said}: expected {expected}")


def a_flag(name: str, value: Any) -> bool:
    """Return true or false, NumPy's as Python's; nothing else is taken for one."""
    if not isinstance(value, bool | np.bool_):
        refuse(name, value, "True or False")
    return bool(value)


def a_text(name: str, value: Any) -> str:
    """Return text that is not empty."""
    if not isinstance(value, str) or not value:
        refuse(name, value, "text that is not empty")
    return value


def a_function(name: str, value: Value, optional: bool = False) -> Value:
    """Return what can be called; ``None`` too where it is ``optional``."""
    if not callable(value) and not (optional and value is None):
        refuse(name, value, "a function" + (" or None" if optional else ""))
    return value


def an_instance(name: str, value: Value, kind: Any, expected: str, optional: bool = False) -> Value:
    """Return an object of the class ``kind``; ``None`` too where it is ``optional``."""
    if not isinstance(value, kind) and not (optional and value is None):
        refuse(name, value, expected + (" or None" if optional else ""))
    return value


def a_number(
    name: str,
    value: Any,
    expected: str = "a finite number",
    fits: Callable[[float], bool] = lambda number: True,
) -> float:
    """Return a finite number as a float.

    Args:
        name: of the argument.
        value: an int, a float or a number of NumPy.
        expected: for the message.
        fits: whether a number is within bounds.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        refuse(name, value, expected)
    try:
        number = float(value)
    except OverflowError:
        refuse(name, "an int beyond float64", expected)
    if not math.isfinite(number) or not fits(number):
        refuse(name, value, expected)
    return number


def a_count(name: str, value: Any, least: int = 0, most: int = MOST_STEPS) -> int:
    """Return a whole number of at least ``least`` and at most ``most`` as an int."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or not least <= value <= most:
        refuse(name, value, f"at least {least} and at most {most}, a whole number")
    return int(value)


__all__ = ["MOST_STEPS", "a_count", "a_flag", "a_function", "a_number", "a_text", "an_instance", "refuse"]
