"""Callbacks of Stable-Baselines3 whose base class is imported only when a callback is made."""

import functools
from typing import Any

from budget_wrappers.integrations.extras import library


def new_callback(cls: type) -> Any:
    """Return an empty object of ``cls`` that is one of Stable-Baselines3's callbacks, too: for ``cls.__new__``.

    Raises:
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    base = library("stable_baselines3.common.callbacks", "sb3").BaseCallback
    return object.__new__(cls if issubclass(cls, base) else _callback_class(cls, base))


@functools.cache
def _callback_class(cls: type, base: type) -> type:
    own = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls, base), own)


__all__ = ["new_callback"]
