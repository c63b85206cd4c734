"""The door of every vector wrapper: flags, rewards and infos come in as numpy, laid out as Gymnasium lays them out.

Wrappers inside may hand out tensors (``NumpyToTorch``, ``JaxToNumpy`` and their like) or a list of infos
(``DictInfoToList``); what is computed here, and handed on, are numpy arrays. Observations pass through as they are.
"""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import SpaceError


def stepped(env: VectorEnv, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Step ``env``; return observations as it has them, rewards, terminations, truncations ``(n,)`` and infos.

    Raises:
        SpaceError: terminations or truncations are not ``n`` flags, infos neither a dictionary nor ``n`` of them.
    """
    obs, rewards, terminations, truncations, infos = env.step(actions)
    if type(terminations) is type(truncations) is type(rewards) is np.ndarray and type(infos) is dict:
        return obs, rewards, terminations, truncations, infos  # what one is converted to all are converted to
    flags = (flags_of(flag, env.num_envs) for flag in (terminations, truncations))
    return obs, as_numpy(rewards), *flags, infos_of(env, infos)


def was_reset(env: VectorEnv, seed: Any, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Reset ``env``; return observations as it has them, and infos."""
    obs, infos = env.reset(seed=seed, options=options)
    return obs, infos_of(env, infos)


def as_numpy(value: Any) -> np.ndarray:
    """Return an array or tensor, wherever it lies, as numpy."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value if value.element_size() != 2 or not value.is_floating_point() else value.float()  # bfloat16
    return np.asarray(value)


def flags_of(value: Any, n: int) -> np.ndarray:
    """Return terminations or truncations as booleans ``(n,)``.

    Raises:
        SpaceError: they are not that.
    """
    flags = as_numpy(value)
    if flags.shape != (n,) or flags.dtype.kind not in "biu":
        raise SpaceError(
            f"terminations or truncations are {value!r}: shape {flags.shape}, type {flags.dtype}; expected {n} "
            "booleans, one for each environment. They come from the environments: mend them there."
        )
    return flags.astype(bool)


def infos_of(env: VectorEnv, infos: Any) -> dict[str, Any]:
    """Return ``infos`` as a dictionary of numpy arrays ``(n,)`` with masks.

    Raises:
        SpaceError: they are neither a dictionary nor a list of ``n``.
    """
    if isinstance(infos, list | tuple) and len(infos) == env.num_envs and all(isinstance(one, dict) for one in infos):
        together: dict[str, Any] = {}
        for row, one in enumerate(infos):
            together = env.unwrapped._add_info(together, one, row)
        return together
    if not isinstance(infos, dict):
        raise SpaceError(
            f"infos are {infos!r}; expected a dictionary of arrays, or a list of {env.num_envs} dictionaries. They "
            "come from the environments: hand out what Gymnasium's do."
        )
    return {key: _numpy_in(value) for key, value in infos.items()}


def _numpy_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numpy_in(part) for key, part in value.items()}
    return as_numpy(value) if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) else value


__all__ = ["as_numpy", "flags_of", "infos_of", "stepped", "was_reset"]
