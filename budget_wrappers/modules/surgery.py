"""Physical removal: units are taken out of a layer and out of whatever reads it."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from budget_wrappers.arguments import an_instance
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.unit_group import UnitGroup

Kept: TypeAlias = dict[nn.Parameter, tuple[tuple[int, Tensor], ...]]
"""Of each parameter that lost something: dimensions, and the indices along them that are left, int64."""


@torch.no_grad()
def keep_units(layer: nn.Linear, following: nn.Linear | Sequence[nn.Linear], keep: Tensor | Sequence[int]) -> Kept:
    """Remove all units of ``layer`` but some, from it and from the layers that read it, in place.

    The parameters stay the same objects, with smaller data. Where the removed units were dead, so that nothing they
    said had a weight or they said 0, outputs are what they were. Whatever holds moments or averages of the parameters
    has to be told: ``agent.structure_changed(kept)``.

    Args:
        layer: its units are its outputs.
        following: every layer whose inputs are those units, in their order.
        keep: which units stay, ascending indices, or a boolean for each unit.

    Returns:
        What is left of each parameter. Those of several layers are merged with ``merged``.

    Raises:
        ConfigError: no unit is kept, an index that is not a unit, indices that do not ascend, or a following layer of
            another number of inputs.
    """
    an_instance("layer", layer, nn.Linear, "a torch.nn.Linear")
    an_instance("following", following, nn.Linear | list | tuple, "the torch.nn.Linear layers that read it")
    consumers = [following] if isinstance(following, nn.Linear) else list(following)
    for consumer in consumers:
        an_instance("following", consumer, nn.Linear, "the torch.nn.Linear layers that read it")
    units = layer.out_features
    an_instance("keep", keep, Tensor | Sequence | np.ndarray, "ascending indices, or a boolean for each unit")
    try:
        index = _indices(torch.as_tensor(keep, device=layer.weight.device), units)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        index = None
    if index is None:
        raise ConfigError(
            f"keep={keep!r} of a layer of {units} units: expected ascending indices of 0 to {units - 1}, one at least, "
            "or a boolean for each unit"
        )
    for consumer in consumers:
        if consumer.in_features != units:
            raise ConfigError(
                f"a following layer of {consumer.in_features} inputs: expected the {units} units of the layer before; "
                "pass the layers that read it directly"
            )
    kept: Kept = {}
    for parameter in (layer.weight, layer.bias):
        if parameter is not None:
            _select(parameter, 0, index, kept)
    layer.out_features = len(index)
    for consumer in consumers:
        _select(consumer.weight, 1, index, kept)
        consumer.in_features = len(index)
    return kept


@torch.no_grad()
def remove_units(
    keep: Mapping[UnitGroup, Tensor | Sequence[int]], beside: Mapping[UnitGroup, Sequence[nn.Parameter]] | None = None
) -> Kept:
    """Remove all units of several groups but some, in place, wherever they lie: one selection along each axis.

    Rows of the layer that makes them (weight and bias), entries of batch norms and their statistics, columns of every
    layer that reads them. The parameters stay the same objects, with smaller data; see ``keep_units``.

    Args:
        keep: of each group, ascending indices or a boolean for each unit; a group may lose all of its units where its
            readers have other inputs, too.
        beside: parameters of a group that have an entry for each unit, such as its θ; they lose the same.

    Returns:
        What is left of each parameter, for optimizers, averages and masks.

    Raises:
        ConfigError: an index that is not a unit, indices that do not ascend, or a layer that would have nothing left.
    """
    chosen = {group: _chosen(group, indices) for group, indices in keep.items()}
    columns: dict[nn.Linear, Tensor] = {}
    for group, index in chosen.items():
        gone = torch.ones(group.units, dtype=torch.bool, device=index.device)
        gone[index] = False
        for reader in group.readers:
            left = columns.setdefault(reader.layer, gone.new_ones(reader.layer.weight.shape[1]))
            left[reader.start : reader.start + group.units][gone] = False
    for left in columns.values():
        if not left.any():
            raise ConfigError(
                f"the units that a layer of {len(left)} inputs reads: expected one that stays at least; keep one"
            )
    kept: Kept = {}
    _move_starts(chosen)
    for group, index in chosen.items():
        _keep_rows(group, index, (beside or {}).get(group, ()), kept)
    for layer, left in columns.items():
        if not left.all():
            _select(layer.weight, 1, left.nonzero().flatten(), kept)
            layer.in_features = layer.weight.shape[1]
    return kept


def _chosen(group: UnitGroup, keep: Tensor | Sequence[int]) -> Tensor:
    index = torch.as_tensor(keep, device=group.maker.weight.device)
    if index.numel() == 0 and index.dtype != torch.bool:
        return index.reshape(0).long()
    found = _indices(index, group.units)
    if found is None and index.dtype == torch.bool and index.shape == (group.units,):
        return index.nonzero().flatten()  # none of them
    if found is None:
        raise ConfigError(
            f"keep={keep!r} of the {group.units} units of {group.name or 'a layer'}: expected ascending indices of 0 "
            f"to {group.units - 1}, or a boolean for each unit"
        )
    return found


def _keep_rows(group: UnitGroup, index: Tensor, beside: Sequence[nn.Parameter], kept: Kept) -> None:
    if len(index) == group.units:
        return
    maker = group.maker
    rows = [maker.weight, maker.bias, *beside]
    for norm in group.norms:
        rows += [norm.weight, norm.bias]
        for name in ("running_mean", "running_var"):
            setattr(norm, name, getattr(norm, name).index_select(0, index))
        norm.num_features = len(index)
    for parameter in rows:
        if parameter is not None:
            _select(parameter, 0, index, kept)
    maker.out_features = len(index)


def _move_starts(chosen: Mapping[UnitGroup, Tensor]) -> None:
    """Count anew where units begin in layers that read several groups side by side."""
    lost = {reader: group.units - len(index) for group, index in chosen.items() for reader in group.readers}
    every = dict.fromkeys([*lost, *(other for reader in lost for other in reader.others)])
    before = {reader: reader.start for reader in every}
    for reader in every:
        gone = (lost[other] for other in lost if other.layer is reader.layer and before[other] < before[reader])
        reader.start -= sum(gone)


def merged(*several: Kept) -> Kept:
    """Return one record of what several removals, in their order, have left."""
    result: Kept = {}
    for kept in several:
        for parameter, selections in kept.items():
            result[parameter] = (*result.get(parameter, ()), *selections)
    return result


def _indices(keep: Tensor, units: int) -> Tensor | None:
    """Return the kept units as ascending indices, int64; ``None`` where ``keep`` is not such a selection."""
    if keep.dim() != 1 or keep.is_floating_point() or keep.is_complex():
        return None
    if keep.dtype == torch.bool:
        index = keep.nonzero().flatten() if len(keep) == units else keep.new_empty(0, dtype=torch.int64)
    else:
        index = keep.long()
    inside = len(index) > 0 and bool((index >= 0).all() and (index < units).all() and (index.diff() > 0).all())
    return index if inside else None


def put_data(parameter: nn.Parameter, data: Tensor) -> None:
    """Give a parameter data of another shape, in place; it keeps no gradient.

    A loss that somebody still holds keeps the node at which autograd accumulates into the parameter, of the old shape,
    and the next loss would meet it: torch drops that node where the type changes only.
    """
    parameter.grad = None
    parameter.data = data.new_empty(0, dtype=torch.float32 if data.dtype == torch.float16 else torch.float16)
    parameter.data = data


def _select(parameter: nn.Parameter, dimension: int, index: Tensor, kept: Kept) -> None:
    put_data(parameter, parameter.data.index_select(dimension, index))
    kept[parameter] = (*kept.get(parameter, ()), (dimension, index))


__all__ = ["Kept", "keep_units", "merged", "put_data", "remove_units"]
