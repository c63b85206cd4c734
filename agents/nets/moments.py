"""Optimizers of a checkpoint: their ``state_dict`` from its flat entries, complete or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.errors import CheckpointError


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
    places = [group.get("params") for group in stored["param_groups"]]
    wrong = sorted(key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key))
    if wrong or places != expected:
        raise CheckpointError(
            f"{path}: the optimizer {name} has the parameters {places} and lacks {', '.join(wrong[:3]) or 'none'}: "
            f"expected the moments of {len(parameters)} parameters, in their shapes; take a file that `save` wrote"
        )
