"""Which weights a layer of another size has kept, and the moments of an optimizer that belong to them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.modules.surgery import Kept

MOMENTS = ("exp_avg", "exp_avg_sq")


def kept_moments(old: Tensor, new: Tensor, state: Mapping[str, Any], kept: Kept | None = None) -> dict[str, Any]:
    """Return the optimizer's state of ``new``, which has taken the place of ``old``.

    Args:
        old: the parameter that ``state`` is of; the same object as ``new`` where it was changed in place.
        new: the parameter now.
        state: Adam's, of ``old``.
        kept: which rows and columns of it are left, see ``budget_wrappers.modules.surgery.keep_units``. A parameter
            that is not listed there and was replaced keeps the moments of the rows and columns whose values are found
            in ``old``; a parameter that was changed in size in place starts with moments of 0.
    """
    if kept is not None and old in kept:
        moments = {name: _selected(state[name], kept[old]) for name in MOMENTS}
        if moments[MOMENTS[0]].shape == new.shape:
            return {**state, **moments}
    if old is new:
        same = state[MOMENTS[0]].shape == new.shape
        return dict(state) if same else {**state, **{name: torch.zeros_like(new.detach()) for name in MOMENTS}}
    return {**state, **{name: _recognised(old.detach(), new.detach(), state[name]) for name in MOMENTS}}


def _selected(tensor: Tensor, kept: tuple[tuple[int, Tensor], ...]) -> Tensor:
    for dimension, index in kept:
        tensor = tensor.index_select(dimension, index)
    return tensor.clone()


def _recognised(old: Tensor, new: Tensor, moment: Tensor) -> Tensor:
    """Return ``moment`` at the places where the values of ``new`` stood in ``old``, 0 elsewhere, ``new``'s shape."""
    before, after = (tensor.reshape(tensor.shape[0], -1) for tensor in (old, new))
    if not before.numel() or not after.numel() or old.dim() != new.dim():
        return torch.zeros_like(new)
    rows, columns = _places(before, after)
    found = (rows >= 0).unsqueeze(1) & (columns >= 0).unsqueeze(0)
    at = rows.clamp(min=0).unsqueeze(1), columns.clamp(min=0).unsqueeze(0)
    found &= before[at] == after
    return torch.where(found, moment.reshape(before.shape)[at], 0.0).reshape(new.shape)


def _places(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row and the column of ``before`` that each row and column of ``after`` was, −1 where none is known.

    Each number of ``after`` that stands exactly once in ``before`` votes for where it stood.
    """
    values, order = before.flatten().sort()
    spot = torch.searchsorted(values, after.flatten().contiguous()).clamp(max=len(values) - 1)
    following = values[(spot + 1).clamp(max=len(values) - 1)]
    once = (values[spot] == after.flatten()) & ((following != values[spot]) | (spot == len(values) - 1))
    place = torch.where(once, order[spot], -1).reshape(after.shape)
    width = before.shape[1]
    row = torch.where(place >= 0, place.div(width, rounding_mode="floor"), -1)
    column = torch.where(place >= 0, place % width, -1)
    return _elected(row), _elected(column.t())


def _elected(votes: Tensor) -> Tensor:
    """Return the most frequent number of each row that is not −1; −1 where there is none."""
    elected = votes.new_full((len(votes),), -1)
    for number, row in enumerate(votes):
        valid = row[row >= 0]
        if len(valid):
            elected[number] = valid.mode().values
    return elected


__all__ = ["Kept", "kept_moments"]
