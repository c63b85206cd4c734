"""One way from observations to a module's tensors, and from its actions back to numpy, for every adapter.

An observation is an array, a number, or a dictionary or tuple of such, nested as deep as it likes.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from budget_wrappers.errors import SpaceError

Integers = Literal["as floats", "but bytes", "as they are"]
"""What becomes of whole numbers: the module's float type; that for bytes (images) only; indices, all of them."""
INTEGERS: tuple[Integers, ...] = ("as floats", "but bytes", "as they are")


def stacked(observations: Sequence[Any]) -> Any:
    """Return observations as one batch, ``(B, …)``: an array, or a dictionary or tuple of such."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: stacked([one[key] for one in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(map(stacked, zip(*observations, strict=True)))
    if isinstance(first, Tensor):
        return torch.stack(list(observations))
    return np.stack(observations)


def floating_of(module: nn.Module) -> Tensor:
    """Return the first floating-point parameter, else buffer, of ``module``: observations get its device and type."""
    every = chain(module.parameters(), module.buffers())
    return next((one for one in every if one.is_floating_point()), torch.zeros(()))


def tensors_of(batch: Any, like: Tensor, integers: Integers = "as floats", place: str = "") -> Any:
    """Return a batch as tensors of the device and float type of ``like``.

    Args:
        batch: arrays ``(B, …)``, or a dictionary or tuple of such.
        like: see ``floating_of``.
        integers: see ``Integers``; what stays whole is int64.
        place: for messages: where in the observation this is.

    Raises:
        SpaceError: something in it is not an array of numbers.
    """
    if isinstance(batch, Mapping):
        return {key: tensors_of(part, like, integers, f"{place}[{key!r}]") for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(tensors_of(part, like, integers, f"{place}[{i}]") for i, part in enumerate(batch))
    if isinstance(batch, Tensor):
        whole, small = not (batch.is_floating_point() or batch.dtype == torch.bool), batch.dtype == torch.uint8
    else:
        batch = as_numbers(batch, f"observation{place}")
        whole, small = batch.dtype.kind in "iu", batch.dtype == np.uint8
    kept = whole and (integers == "as they are" or (integers == "but bytes" and not small))
    return torch.as_tensor(batch, dtype=torch.int64 if kept else like.dtype, device=like.device)


def as_numbers(value: Any, what: str) -> np.ndarray:
    """Return ``value`` as an array of numbers.

    Raises:
        SpaceError: it is text, an object, or rows of different lengths.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{what} is {value!r} ({error}); expected an array of numbers, or a tree of such") from error
    if array.dtype.kind not in "fiub":
        raise SpaceError(
            f"{what} is {value!r} of type {array.dtype}; expected numbers. Leave text and objects out of the "
            "observation, such as by gymnasium.wrappers.FilterObservation."
        )
    return array


def has_whole_numbers(tree: Any) -> bool:
    """Tell whether an observation holds integers."""
    if isinstance(tree, Mapping | tuple):
        return any(map(has_whole_numbers, tree.values() if isinstance(tree, Mapping) else tree))
    return np.asarray(tree).dtype.kind in "iu"


def numpy_of(tree: Any) -> Any:
    """Return tensors as numpy arrays, in the same tree; bfloat16, which numpy lacks, as float32."""
    if isinstance(tree, Mapping):
        return {key: numpy_of(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(numpy_of, tree))
    if isinstance(tree, Tensor):
        tree = tree.detach().cpu()
        return (tree.float() if tree.dtype == torch.bfloat16 else tree).numpy()
    return np.asarray(tree)


def row_of(tree: Any, row: int) -> Any:
    """Return one row of a batch, a numpy scalar where it is a number."""
    if isinstance(tree, Mapping):
        return {key: row_of(part, row) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(row_of(part, row) for part in tree)
    value = tree[row]
    return value if np.ndim(value) else value[()]


def layout_of(tree: Any) -> Any:
    """Return the shapes in an observation, in the same tree: what two observations of one space have in common."""
    if isinstance(tree, Mapping):
        return {key: layout_of(part) for key, part in tree.items()}
    return tuple(map(layout_of, tree)) if isinstance(tree, tuple) else np.shape(tree)


def first_that_works(attempt: Callable[[Integers], Any], example: Any, name: str) -> tuple[Integers, Any]:
    """Return how a module takes whole numbers, and what ``attempt`` returned: floats where these work.

    Args:
        attempt: runs the module on its example, given how to treat whole numbers.
        example: one observation.
        name: of the sub-policy.

    Raises:
        SpaceError: no way works; it names the first error.
    """
    first: Exception | None = None
    for integers in INTEGERS if has_whole_numbers(example) else INTEGERS[:1]:
        try:
            return integers, attempt(integers)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            if isinstance(error, SpaceError) or type(error).__module__.startswith("budget_wrappers."):
                raise
            first = first or error
    raise SpaceError(
        f"Sub-policy {name!r} cannot act on its example, of the shapes {layout_of(example)}: {first!r}; expected "
        "act(module, observations) to take a batch of one such observation. Mend act= or example=."
    ) from first


__all__ = [
    "as_numbers",
    "first_that_works",
    "floating_of",
    "has_whole_numbers",
    "layout_of",
    "numpy_of",
    "row_of",
    "stacked",
    "tensors_of",
]
