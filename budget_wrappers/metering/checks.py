"""Checks that several parts of metering share."""

from typing import Any

from budget_wrappers.core import Convention
from budget_wrappers.errors import ConfigError, CostError
from budget_wrappers.functional.costs import MOST_FLOPS, whole

CONVENTIONS: tuple[Convention, ...] = ("matmul", "all")


def check_convention(convention: str) -> Convention:
    """Return ``convention``; raises ConfigError for any but ``"matmul"`` and ``"all"``."""
    for known in CONVENTIONS:
        if convention == known:
            return known
    raise ConfigError(f"convention={convention!r}; expected one of {', '.join(map(repr, CONVENTIONS))}")


def check_name(name: Any, what: str) -> str:
    """Return ``name``, under which FLOPs are listed; raises CostError for anything but text that is not empty."""
    if not isinstance(name, str) or not name:
        raise CostError(f"{what}={name!r}; expected text that is not empty, as accounts list FLOPs by name")
    return name


__all__ = ["CONVENTIONS", "MOST_FLOPS", "check_convention", "check_name", "whole"]
