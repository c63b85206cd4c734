"""When a vector environment resets its sub-environments, and which of them a call resets."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from budget_wrappers.errors import ConfigError
from budget_wrappers.wrappers.reading import require_options

NEXT_STEP, SAME_STEP, DISABLED = "NextStep", "SameStep", "Disabled"
"""Values of ``gymnasium.vector.AutoresetMode``, which Gymnasium 1.0 does not have: it behaves like ``NEXT_STEP``."""

RESET_MASK = "reset_mask"


def autoreset_mode(env: VectorEnv) -> str:
    """Return the mode that ``env`` declares in its metadata; without one it is ``NEXT_STEP``, as Gymnasium assumes.

    Raises:
        ConfigError: it declares something else.
    """
    declared = (env.metadata or {}).get("autoreset_mode", NEXT_STEP)
    mode = getattr(declared, "value", declared)
    if mode not in (NEXT_STEP, SAME_STEP, DISABLED):
        raise ConfigError(
            f"{env} declares metadata['autoreset_mode']={declared!r}; expected a gymnasium.vector.AutoresetMode. For "
            "an environment of another library say which one it is: as_vector_env(env, autoreset_mode=...)."
        )
    return mode


def mode_arguments(mode: str) -> dict[str, Any]:
    """Return the arguments with which Gymnasium makes environments in ``mode``: none before 1.1, see above."""
    known = getattr(gym.vector, "AutoresetMode", None)
    return {} if known is None else {"autoreset_mode": known(mode)}


def reset_mask(options: dict[str, Any] | None) -> tuple[dict[str, Any] | None, np.ndarray | None]:
    """Return a copy of ``options`` and of the mask in it, ``(n,)`` booleans, ``None`` where everything is reset.

    To be called before delegating, and with the copy: vector environments take the mask out of what they are given.

    Raises:
        ConfigError: no dictionary, or a mask that is not a list or array of booleans.
    """
    require_options(options)
    if options is None:
        return None, None
    given = options.get(RESET_MASK)
    if given is None:
        return dict(options), None
    mask = np.array(given) if isinstance(given, list | tuple | np.ndarray) else np.empty(())
    if mask.dtype != bool or mask.ndim != 1 or not mask.any():
        raise ConfigError(
            f"options[{RESET_MASK!r}]={given!r}; expected a boolean for each environment, one of them True. For all of "
            "them leave the mask out."
        )
    return {**options, RESET_MASK: mask.copy()}, mask  # vector environments take an array only


def find_in_vector(env: VectorEnv, name: str, default: Any = None) -> Any:
    """Return the attribute ``name`` of ``env`` or of a layer inside it, else ``default``.

    Vector wrappers forward no attributes, and have no ``get_wrapper_attr``.
    """
    layer = env
    while not hasattr(layer, name):
        if not isinstance(layer, VectorWrapper):
            return default
        layer = layer.env
    return getattr(layer, name)


__all__ = [
    "DISABLED",
    "NEXT_STEP",
    "RESET_MASK",
    "SAME_STEP",
    "autoreset_mode",
    "find_in_vector",
    "mode_arguments",
    "reset_mask",
]
