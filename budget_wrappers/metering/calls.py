"""Reading one call of a module: what its FLOPs follow from, and how many observations it holds."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._pytree import tree_map


def is_one_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a call has one ordinary tensor as its only argument, so that its shape says everything."""
    return len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and not args[0].is_nested


def call_key(args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return what a static module's FLOPs follow from: the shapes of tensors, and every argument that is none."""
    return ("call", _key(args), _key(kwargs))


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ("nested", str(value._nested_tensor_size().tolist())) if value.is_nested else value.shape
    if isinstance(value, Mapping):
        return tuple((name, _key(part)) for name, part in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    if isinstance(value, (bool, int, float, str, type(None), torch.dtype, torch.device)):
        return (type(value), value)
    shape = getattr(value, "shape", None)
    return (type(value), shape if isinstance(shape, tuple) else repr(value))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Return the tensors in ``value``, inside of tuples, lists and mappings too, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)


def recorded(output: Any) -> Iterator[Tensor]:
    """Return the tensors in ``output`` that autograd has recorded."""
    return (tensor for tensor in tensors_in(output) if tensor.requires_grad)


def in_transform() -> bool:
    """Tell whether ``torch.vmap`` or another transform of ``torch.func`` runs, or ``torch.jit.trace``."""
    return (
        peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch.jit._trace._trace_module_map is not None
    )


def is_mapped() -> bool:
    """Tell whether ``torch.vmap`` runs, so that tensors hide a batch; transforms that only differentiate hide none."""
    stack = get_interpreter_stack()
    return stack is not None and any(level.key() == TransformType.Vmap for level in stack)


@contextmanager
def outside_transforms(args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """Leave the transforms of ``torch.func`` that run, with tensors of the same shapes for those of a call."""
    with temporarily_clear_interpreter_stack():
        yield tree_map(
            lambda leaf: (
                torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) if isinstance(leaf, Tensor) else leaf
            ),
            (args, kwargs),
        )


def is_traced(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call is looked at and not run: by ``torch.jit.trace``, or with tensors that hold no numbers."""
    if torch._C._get_tracing_state() is not None or _checks_a_trace():
        return True
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    if fakes is None:
        return False
    return any(isinstance(tensor, fakes.FakeTensor) for tensor in tensors_in((args, tuple(kwargs.values()))))


def _checks_a_trace() -> bool:
    """Tell whether ``torch.jit.trace`` runs a module in this thread to compare it with what it has traced."""
    if torch.jit._trace._trace_module_map is None:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torch.jit._trace.__file__:
            return True
        frame = frame.f_back
    return False


def hidden_batch(args: Any, kwargs: Mapping[str, Any]) -> int:
    """Return over how many the first tensor of a call is mapped by ``torch.vmap``, 1 where it is not."""
    tensor = next(tensors_in((args, tuple(kwargs.values()))), None)
    if tensor is None or not tensor.numel():
        return 1
    whole = tensor
    while is_functorch_wrapped_tensor(whole):
        whole = get_unwrapped(whole)
    return whole.numel() // tensor.numel()


def rows_in_call(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any = None) -> int:
    """Return the observations in a call: the leading dimension of its first tensor, 1 where that has no batch.

    Convolutions, recurrent and attention layers say themselves what an unbatched input looks like; the first of them,
    or linear layer or embedding, decides. A row of numbers for an embedding is a batch where what came out has a row
    for each, and one observation of several numbers otherwise.
    """
    if isinstance(args, tuple) and args and isinstance(args[0], nn.utils.rnn.PackedSequence):
        return int(args[0].batch_sizes[0])
    tensor = next(tensors_in((args, tuple(kwargs.values()))), None)
    if tensor is None or tensor.dim() == 0:
        return 1
    if tensor.is_nested:
        return tensor.size(0)
    dims = tensor.dim()
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            return tensor.shape[0] if dims == len(layer.kernel_size) + 2 else 1
        if isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
            return tensor.shape[0 if layer.batch_first else 1] if dims == 3 else 1
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            return tensor.shape[0] if dims > 1 or _row_for_each(output, tensor.shape[0]) else 1
        if isinstance(layer, nn.Linear):
            break
    return tensor.shape[0] if dims > 1 else 1


def _row_for_each(output: Any, rows: int) -> bool:
    first = next(tensors_in(output), None)
    return first is None or (first.dim() > 1 and first.shape[0] == rows)
