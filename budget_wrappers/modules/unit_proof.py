"""Trying groups of units on a copy of their module: what is removed must be what is multiplied by 0.

Watching a module sees what torch's functions are given. What else a forward pass does with units (it returns them,
writes them into an array, names a layer's weight itself) shows here: the two outputs differ, or the smaller copy cannot
run.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.isolation import one_at_a_time
from budget_wrappers.metering.quiet import all_quiet
from budget_wrappers.modules.surgery import remove_units
from budget_wrappers.modules.unit_group import Reader, UnitGroup

WITHIN = 1e-4
"""Of the largest number, within which two outputs are the same: sums in another order round in another way."""


def proved(module: nn.Module, groups: Sequence[UnitGroup], example_inputs: Sequence[Any]) -> list[UnitGroup]:
    """Return those of ``groups`` whose units can be removed.

    Args:
        module: that they are of.
        groups: as they seem to be.
        example_inputs: that the module takes; numbers are drawn in their shapes, as many things cannot be told apart
            at 0.

    Raises:
        ConfigError: the module cannot be copied.
    """
    if not groups:
        return []
    inputs = _drawn(module, example_inputs)
    draws = not _same_numbers(*(_said(_copied(module), inputs, False) for _ in range(2)))
    if _holds(module, groups, inputs, draws):
        return list(groups)
    alone = [group for group in groups if _holds(module, [group], inputs, draws)]
    return alone if not alone or _holds(module, alone, inputs, draws) else []


def _holds(module: nn.Module, groups: Sequence[UnitGroup], inputs: Sequence[Any], draws: bool) -> bool:
    """Tell whether the groups can lose every second unit, the first among them or not."""
    return all(_loses(module, groups, inputs, draws, first) for first in (0, 1))


def _loses(module: nn.Module, groups: Sequence[UnitGroup], inputs: Sequence[Any], draws: bool, first: int) -> bool:
    multiplied, removed = _copied(module), _copied(module)
    keep = [(torch.arange(group.units) % 2 == first) | (group.units == 1) for group in groups]
    for group, own in zip(_same(module, groups, multiplied), keep, strict=True):
        made = _Makes()
        group.maker.register_forward_hook(made)
        for reader in group.readers:
            reader.layer.register_forward_pre_hook(_Multiplies(made, reader.start, own.to(reader.layer.weight)))
    try:
        with torch.no_grad():
            remove_units(dict(zip(_same(module, groups, removed), keep, strict=True)))
        return _same_numbers(_said(multiplied, inputs, draws), _said(removed, inputs, draws))
    except Exception:  # noqa: BLE001  whatever a foreign forward pass raises where a layer is smaller
        return False


def _same_numbers(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    if [tensor.shape for tensor in one] != [tensor.shape for tensor in other] or not one:
        return False
    within = WITHIN * max([1e-6, *(float(tensor.abs().max()) for tensor in one if tensor.numel())])
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(a, b, rtol=0.0, atol=within, equal_nan=True) for a, b in pairs)


class _Makes:
    """Forward hook that notes that a layer ran: gates settle what they multiply by when it does."""

    ran = False

    def __call__(self, layer: nn.Module, given: Any, output: Any) -> None:
        self.ran = True


class _Multiplies:
    """Forward pre-hook that multiplies some inputs of a layer, once the layer that makes them has run.

    Args:
        made: of that layer.
        start: the first of the inputs.
        factor: of each.
    """

    def __init__(self, made: _Makes, start: int, factor: Tensor) -> None:
        self.made, self.start, self.factor = made, start, factor

    def __call__(self, layer: nn.Linear, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.made.ran:
            return given
        ones = self.factor.new_ones(layer.weight.shape[1])
        ones[self.start : self.start + len(self.factor)] = self.factor
        return (given[0] * ones, *given[1:])


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy that can be cut; without hooks where these cannot be copied, as those of who meters a model."""
    try:
        return copy.deepcopy(module)
    except Exception:  # noqa: BLE001  what a foreign object may raise
        made: dict[nn.Module, nn.Module] = {}
    try:
        return _without_hooks(module, made)
    except Exception as error:
        raise ConfigError(
            f"a {type(module).__name__} cannot be copied ({error!r}), so that its units cannot be tried: expected one "
            "that copy.deepcopy takes; pass groups=[chain_group([layer, activation, …], [reader, …]), …]"
        ) from error


def _without_hooks(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a copy of a module and of what is inside it, with parameters and buffers of its own, and no hooks."""
    if module not in made:
        own = made[module] = copy.copy(module)
        for name, value in list(vars(module).items()):
            if "_hooks" in name and isinstance(value, dict):
                setattr(own, name, type(value)())
        own._parameters = {name: copy.deepcopy(value) for name, value in module._parameters.items()}
        own._buffers = {name: copy.deepcopy(value) for name, value in module._buffers.items()}
        own._modules = {
            name: None if part is None else _without_hooks(part, made) for name, part in module._modules.items()
        }
    return made[module]


def _same(module: nn.Module, groups: Sequence[UnitGroup], other: nn.Module) -> list[UnitGroup]:
    """Return the groups of a copy."""
    names = {part: name for name, part in module.named_modules()}

    def there(part: nn.Module) -> Any:
        return other.get_submodule(names[part])

    return [
        UnitGroup(
            group.name,
            there(group.maker),
            tuple(Reader(there(reader.layer), reader.start) for reader in group.readers),
            tuple(there(norm) for norm in group.norms),
        )
        for group in groups
    ]


def _drawn(module: nn.Module, example_inputs: Sequence[Any]) -> Any:
    """Return inputs like the example, with numbers drawn around it, or the example where the module refuses these."""
    generator = torch.Generator().manual_seed(0)

    def drawn(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value + torch.randn(value.shape, generator=generator).to(value)
        return value

    inputs = pytree.tree_map(drawn, tuple(example_inputs))
    try:
        _said(_copied(module), inputs, False)
    except Exception:  # noqa: BLE001  a foreign module that checks what it is given
        return tuple(example_inputs)
    return inputs


def _said(module: nn.Module, inputs: Sequence[Any], draws: bool) -> list[Tensor]:
    """Return every tensor of numbers that a module says.

    Args:
        module: runs once.
        inputs: that it is given.
        draws: whether it draws numbers, which are then the same each time.
    """
    with contextlib.ExitStack() as stack:
        for context in (evaluating(module), torch.no_grad(), all_quiet()):
            stack.enter_context(context)
        if draws:
            stack.enter_context(one_at_a_time())
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(0)
        return [tensor.detach().double() for tensor in _tensors(module(*inputs)) if not tensor.is_complex()]


def _tensors(said: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors in what a module has returned, and in attributes of objects there, such as distributions."""
    for leaf in pytree.tree_leaves(said):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module | type):
            for value in vars(leaf).values():
                yield from _tensors(value, depth - 1)


__all__ = ["proved"]
