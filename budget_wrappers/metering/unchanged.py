"""Running a module and leaving no trace: its state, its gradients and its random generators are put back."""

import copy
import functools
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from budget_wrappers.metering.randomness import as_before


def copied(value: Any) -> Any:
    """Return ``value`` with every tensor and array in it copied, gradient requirement and strides kept."""
    return tree_map(_copied_leaf, value)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, nn.Parameter):
        return leaf  # a weight that is passed in stays the weight that a module holds
    if isinstance(leaf, Tensor):
        twin = leaf.detach().clone()
        recorded = leaf.requires_grad and not twin.is_inference() and peek_interpreter_stack() is None
        return twin.requires_grad_() if recorded else twin
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return leaf


@contextmanager
def unchanged(module_or_fn: Callable[..., Any]) -> Iterator[None]:
    """Put back, at the end, whatever running ``module_or_fn`` may change.

    While inside, modules hold copies of their buffers and of the tensors among their attributes, so that the originals
    are never written to. Modules are those of ``module_or_fn``: itself, the object it is a method of, or what its
    closure holds.
    """
    with ExitStack() as stack:
        stack.enter_context(as_before())
        twins = WeakTensorKeyDictionary()
        for root in _roots(module_or_fn):
            for module in root.modules():
                stack.enter_context(_module_state(module, twins))
        yield


def _roots(fn: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that ``fn`` visibly belongs to."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    held = [fn, getattr(fn, "__self__", None)]
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    return [value for value in held if isinstance(value, nn.Module)]


@contextmanager
def _module_state(module: nn.Module, twins: WeakTensorKeyDictionary) -> Iterator[None]:
    attributes = dict(module.__dict__)
    parameters, buffers = dict(module._parameters), dict(module._buffers)
    children = dict(module._modules)
    gradients = [(p, p.grad, _saved(p.grad)) for p in parameters.values() if p is not None]
    contents = {name: copy.copy(value) for name, value in attributes.items() if _is_plain_container(name, value)}
    generators = [(g, _generator_state(g)) for g in attributes.values() if _is_generator(g)]
    for name, value in buffers.items():
        if value is not None:
            module._buffers[name] = _twin(value, twins)
    for name, value in attributes.items():
        if isinstance(value, Tensor) and not value.requires_grad:
            module.__dict__[name] = _twin(value, twins)
    try:
        yield
    finally:
        for name, value in contents.items():
            _refill(attributes[name], value)
        _refill(module.__dict__, attributes)
        for live, saved in (
            (module._parameters, parameters),
            (module._buffers, buffers),
            (module._modules, children),
        ):
            _refill(live, saved)
        for parameter, gradient, (version, values) in gradients:
            parameter.grad = gradient
            if gradient is not None and gradient._version != version:
                with torch.no_grad():
                    gradient.copy_(values)
        for generator, state in generators:
            _restore_generator(generator, state)


def _saved(gradient: Tensor | None) -> tuple[int, Tensor | None]:
    return (0, None) if gradient is None else (gradient._version, gradient.clone())


def _twin(tensor: Tensor, twins: WeakTensorKeyDictionary) -> Tensor:
    """Return one copy of ``tensor`` for all modules that share it."""
    if tensor not in twins:
        twins[tensor] = tensor.detach().clone()
    return twins[tensor]


def _is_plain_container(name: str, value: Any) -> bool:
    # torch's own bookkeeping (_parameters, _forward_hooks and so on) is not the model's memory.
    internal = name in _MODULE_INTERNALS
    return not internal and type(value) in (list, dict, set, deque)


_MODULE_INTERNALS = frozenset(nn.Module().__dict__)


def _refill(live: Any, saved: Any) -> None:
    """Give a container its old contents back without replacing the object.

    What a module consists of is never missing meanwhile, as another thread may be running it.
    """
    if isinstance(live, dict):
        for key in [key for key in live if key not in saved]:
            del live[key]
        live.update(saved)
        if list(live) == list(saved):
            return
    live.clear()
    if isinstance(live, set):
        live.update(saved)
    else:
        live.extend(saved)


def _is_generator(value: Any) -> bool:
    return isinstance(value, (torch.Generator, np.random.Generator, random.Random))


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate()


def _restore_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)
