"""Optimizers of a checkpoint: their ``state_dict`` from its flat entries, complete or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.errors import CheckpointError
from budget_wrappers.files import is_number


def optimizer_state(
    name: str, plain: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path
) -> dict[str, Any]:
    """Return an optimizer's ``state_dict`` from the checkpoint's flat entries."""
    prefix = f"optimizer/{name}/"
    state: dict[int, dict[str, Any]] = {}
    flat = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    try:
        for place, value in (flat | dict(plain["plain"])).items():
            index, key = place.split("/", 1)
            state.setdefault(int(index), {})[key] = value
        groups = [
            {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in pairs}
            for pairs in (group.items() for group in plain["groups"])
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the optimizer {name} is stored as {plain!r} ({error!r}): expected its groups and plain entries; "
            "take a file that `save` wrote"
        ) from error
    return {"state": state, "param_groups": groups}


def require_moments(name: str, optimizer: torch.optim.Optimizer, stored: Mapping[str, Any], path: str | Path) -> None:
    """Raise unless ``stored`` has Adam's moments of every parameter, or of none, as before the first update."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = iter(range(len(parameters)))
    expected = [[next(numbers) for _ in group["params"]] for group in optimizer.param_groups]
    own = {
        f"{index}/{key}": parameter.shape if key != "step" else torch.Size()
        for index, parameter in enumerate(parameters)
        for key in ("step", "exp_avg", "exp_avg_sq")
        if stored["state"]
    }
    shapes = {f"{i}/{key}": getattr(v, "shape", None) for i, kept in stored["state"].items() for key, v in kept.items()}
    types = {
        f"{index}/{key}": torch.float32 if key == "step" else parameters[index].dtype
        for index, kept in stored["state"].items()
        for key in kept
        if index < len(parameters)
    }
    kinds = {f"{i}/{key}": getattr(v, "dtype", None) for i, kept in stored["state"].items() for key, v in kept.items()}
    places = [group.get("params") for group in stored["param_groups"]]
    wrong = sorted(
        key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key) or types.get(key) != kinds.get(key)
    )
    if wrong or places != expected:
        raise CheckpointError(
            f"{path}: the optimizer {name} has the parameters {places} and lacks {', '.join(wrong[:3]) or 'none'}: "
            f"expected the moments of {len(parameters)} parameters, in their shapes; take a file that `save` wrote"
        )
    for group, mine in zip(stored["param_groups"], optimizer.state_dict()["param_groups"], strict=True):
        _require_group(name, group, mine, path)


def _require_group(name: str, stored: Mapping[str, Any], own: Mapping[str, Any], path: str | Path) -> None:
    """Raise unless a group has numbers where the optimizer's own has numbers, and switches where it has switches."""
    # Schedules of step sizes add numbers of their own.
    if strange := sorted(key for key in stored.keys() - own.keys() if not _alike(0.0, stored[key])):
        raise CheckpointError(
            f"{path}: the optimizer {name} has {', '.join(strange)}: expected the keys {', '.join(own)}; take a file "
            "that `save` wrote"
        )
    for key, value in own.items():
        # An optimizer gives the keys that switch something off their defaults.
        found = stored.get(key, value if not value else None)
        if key != "params" and not _alike(value, found):
            raise CheckpointError(
                f"{path}: the optimizer {name} has {key}={found!r}: expected a value like {value!r}; take a file that "
                "`save` wrote"
            )


def _alike(own: Any, stored: Any) -> bool:
    """Tell whether ``stored`` is of the kind of ``own``; numbers are finite, 0 or more, in other tuples below 1."""
    if isinstance(own, tuple) and stored == own:
        return True
    if isinstance(own, tuple):
        same = isinstance(stored, tuple) and len(own) == len(stored) and all(map(_alike, own, stored))
        return same and all(share < 1 for share in stored)
    if own is None or isinstance(own, (bool, str)):
        return type(own) is type(stored)
    return is_number(stored) and stored >= 0
