"""Checks that several parts of metering share."""

from typing import Any, get_args

from budget_wrappers.core import Convention, Unknown
from budget_wrappers.errors import ConfigError, CostError
from budget_wrappers.functional.costs import MOST_FLOPS, whole

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


def check_name(name: Any, what: str) -> str:
    """Return ``name``, under which FLOPs are listed; raises CostError for anything but text that is not empty."""
    if not isinstance(name, str) or not name:
        raise CostError(f"{what}={name!r}; expected text that is not empty, as accounts list FLOPs by name")
    return name


__all__ = ["CONVENTIONS", "MOST_FLOPS", "check_convention", "check_name", "check_unknown", "whole"]
