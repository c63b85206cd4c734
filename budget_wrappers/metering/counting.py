"""Counting the FLOPs that torch really runs: a dispatch mode of our own, and ``count_flops`` on top of it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils._pytree import tree_map

from budget_wrappers.arguments import a_function, an_instance
from budget_wrappers.core import Convention
from budget_wrappers.errors import ConfigError, UncountableError
from budget_wrappers.metering.checks import CONVENTIONS, check_convention
from budget_wrappers.metering.elementwise import elementwise_cost, product_extras
from budget_wrappers.metering.formulas import PRODUCTS, Formula
from budget_wrappers.metering.operators import functional_packet, is_free
from budget_wrappers.metering.quiet import all_quiet
from budget_wrappers.metering.unchanged import copied, unchanged

Handler = Callable[[tuple[Any, ...], dict[str, Any], Any], int]

_REGISTERED: dict[OpOverload | OpOverloadPacket, Handler] = {}


def _decompose(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Mark a composite operator: it is run part by part, and its parts are counted (never called)."""
    return 0


def _free(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Mark an operator that costs nothing (never called)."""
    return 0


# Queries that a tensor subclass may answer itself; a mode must leave them alone.
_ANSWERED_ELSEWHERE = frozenset(
    (
        *(f"aten.{name}.default" for name in ("is_contiguous", "sym_is_contiguous", "is_strides_like_format", "dim")),
        *(f"aten.{name}.default" for name in ("size", "sym_size", "stride", "sym_stride", "numel", "sym_numel")),
        *(f"aten.{name}.default" for name in ("storage_offset", "sym_storage_offset", "is_non_overlapping_and_dense")),
        "aten.is_contiguous.memory_format",
        "prim.layout.default",
    )
)


def register_flop_formula(op: Any, formula: Callable[..., int]) -> None:
    """Teach the counter an operator that torch does not describe: a custom kernel, say.

    The formula has the form that ``torch.utils.flop_counter.register_flop_formula`` asks for, so one function serves
    both; formulas registered there are found here as well. An operator registered twice keeps the later formula.

    Args:
        op: ``torch.ops.<library>.<name>``, one overload of it, or what ``torch.library.custom_op`` returned.
        formula: called as ``formula(*args, out_shape=…, **kwargs)`` with each tensor replaced by its shape; returns the
            FLOPs of one call, 2 a multiply-accumulate. It counts the same in both conventions.

    Raises:
        ConfigError: ``op`` is not an operator, or one whose formula is built in.
    """
    op = getattr(op, "_opoverload", op)
    if not isinstance(op, (OpOverload, OpOverloadPacket)):
        raise ConfigError(
            f"register_flop_formula got {op!r} of type {type(op).__name__}; expected an operator such as "
            "torch.ops.mylib.foo. A Python function needs none: what it calls is counted."
        )
    a_function("formula", formula)
    packets = [functional_packet(getattr(op, overload)) for overload in getattr(op, "overloads", list)()]
    if not PRODUCTS.keys().isdisjoint(packets or [functional_packet(op)]):
        raise ConfigError(f"{op} has a built-in formula already; register only operators that count_flops names")

    def handler(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
        shapes = tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, (args, kwargs, out))
        return int(formula(*shapes[0], out_shape=shapes[2], **shapes[1]))

    _REGISTERED[op] = handler
    for handlers in _HANDLERS.values():
        handlers.clear()


def _handler_from(formula: Formula, extra: Formula | None) -> Handler:
    if extra is None:
        return lambda args, kwargs, out: formula(out, *args, **kwargs)
    return lambda args, kwargs, out: formula(out, *args, **kwargs) + extra(out, *args, **kwargs)


def _classify(op: OpOverload, convention: Convention) -> Handler:
    """Return how ``op`` is counted; raises UncountableError where nothing is known about it."""
    packet = functional_packet(op)
    for known in (op, op.overloadpacket, packet):
        if known in _REGISTERED:
            return _REGISTERED[known]
        if known in PRODUCTS:
            return _handler_from(PRODUCTS[known], product_extras(op) if convention == "all" else None)
    free = is_free(op)
    if free and convention == "matmul":
        return _free
    # Outside of inference mode torch takes a composite operator apart before any mode sees it; here its parts cost
    # something too, so it is always taken apart.
    if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd"):
        return _decompose
    if free:
        cost = elementwise_cost(op)
        return lambda args, kwargs, out: cost(out, *args, **kwargs)
    from torch.utils.flop_counter import flop_registry  # formulas that the user gave to torch

    if packet in flop_registry:
        theirs = flop_registry[packet]
        return lambda args, kwargs, out: int(theirs(*args, **kwargs, out_val=out))
    raise UncountableError(_unknown(str(op)))


def _unknown(op: str) -> str:
    return (
        f"operator {op} has no FLOP formula; expected a matrix product or convolution that is known, or an operator "
        f"known to hold none. Teach it with register_flop_formula(torch.ops.{op}, formula)."
    )


_HANDLERS: dict[Convention, dict[Any, Handler]] = {convention: {} for convention in CONVENTIONS}


class CountingMode(TorchDispatchMode):
    """Adds up the FLOPs of everything that runs inside, backward passes included.

    Args:
        convention: what to count.

    Attributes:
        flops: what has run so far.
        enabled: nothing is counted, and nothing refused, while False.
    """

    # Without this torch refuses to run torch.cond and its kind under a mode; here they get an error that names them.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the method below: that loads its compiler (seconds) and costs on every operator."""
        return False

    def __init__(self, convention: Convention = "matmul") -> None:
        super().__init__()
        self.convention = check_convention(convention)
        self.flops = 0
        self.enabled = True
        self.refused: UncountableError | None = None
        self._handlers = _HANDLERS[convention]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and add its FLOPs."""
        kwargs = kwargs or {}
        handler = self._handlers.get(func) or self._handler(func)
        if handler is _free or not self.enabled:
            return func(*args, **kwargs)
        if handler is _decompose:
            with self:
                # torch's own kernel, as outside of inference mode; func.decompose() prefers a version in Python, made
                # for compilers, whose parts are others (interpolation as indexing and arithmetic).
                return func._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        if handler is _branch:
            condition, taken, other, operands = args
            with self:
                return (taken if condition else other)(*operands)
        if handler is _answered_elsewhere:
            return NotImplemented
        out = func(*args, **kwargs)
        if "out" in kwargs:
            # A formula gets the result once, wherever it was written to.
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        self.flops += handler(args, kwargs, out)
        return out

    def _handler(self, func: Any) -> Handler:
        if str(func) in _ANSWERED_ELSEWHERE:
            handler = _answered_elsewhere
        elif not self.enabled:
            return _free
        else:
            try:
                if isinstance(func, OpOverload):
                    handler = _classify(func, self.convention)
                elif str(func) == "cond":  # not torch.ops.higher_order.cond: naming it loads torch's compiler
                    handler = _branch
                else:
                    raise UncountableError(
                        f"higher-order operator {func} cannot be counted: what it calls is out of sight. Write it as "
                        "ordinary torch code, or charge what it costs by meter.add(flops)."
                    )
            except UncountableError as error:
                # A model may catch what its layers raise: whoever reads the count must still learn of it.
                self.refused = error
                raise
        self._handlers[func] = handler
        return handler


def _branch(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Mark ``torch.cond``: only the branch that its condition takes is run and counted (never called)."""
    return 0


def _answered_elsewhere(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Mark a query that a tensor subclass answers (never called)."""
    return 0


def original(module_or_fn: Any) -> Any:
    """Return what ``torch.compile`` was given, or the argument itself.

    Raises:
        UncountableError: a scripted module or function, whose operators torch may fuse out of sight.
    """
    while True:
        inner = getattr(module_or_fn, "_orig_mod", None) or getattr(module_or_fn, "_torchdynamo_orig_callable", None)
        if inner is None:
            break
        module_or_fn = inner
    parts = module_or_fn.modules() if isinstance(module_or_fn, nn.Module) else [module_or_fn]
    for part in parts:
        if isinstance(part, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            name = getattr(part, "original_name", None) or type(part).__name__
            raise UncountableError(
                f"{name} is scripted ({type(part).__name__}): torch may fuse its operators out of sight of a counter. "
                "Count the Python module that it was made from, and charge it by meter.add(flops) where it runs."
            )
    return module_or_fn


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled functions as the Python they were made from, as a compiled kernel shows no operators."""
    # Nothing can be compiled before this module is loaded, and loading it takes a second.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Keep attention off its fast path, which torch takes or leaves by the gradient mode of the caller.

    Its products are the same, but over a padded batch it drops the padding, and the answer would change with the mode.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _alone() -> Iterator[None]:
    """Hide what runs from the modes of others, so that their counts and traces stay theirs."""
    # Only where there are any: the first call loads torch's compiler, which takes seconds.
    if not _get_current_dispatch_mode_stack():
        yield
        return
    with _disable_current_modes():
        yield


def count_flops(
    module_or_fn: Callable[..., Any],
    *example_inputs: Any,
    convention: Convention = "matmul",
    example_kwargs: Mapping[str, Any] | None = None,
) -> int:
    """Run ``module_or_fn`` once on copies of ``example_inputs`` and return the FLOPs of that run.

    The answer is the same with gradients, under ``torch.no_grad()`` and under ``torch.inference_mode()``. In the
    ``"matmul"`` convention it equals ``torch.utils.flop_counter.FlopCounterMode`` wherever that sees every product,
    and the formula (``formulas.py``) where torch reports 0 or too little: fused LSTMs and attention, bilinear layers,
    products of a matrix and a vector. ``"all"`` adds what ``elementwise.py`` lists.

    A module that branches on data is counted by the branch that these inputs take. A padded batch in an attention
    layer is counted in full. What ``torch.compile`` returned is counted through the module that it was given.

    Nothing else changes: inputs, buffers, other state that the modules hold, gradients and random generators are as
    before, and no meter is charged. Of a plain function that holds only for what its arguments and its closure show.

    Args:
        module_or_fn: a module, or any function of torch tensors. A function may call ``backward``.
        *example_inputs: its positional arguments, of the shapes to count for.
        convention: ``"matmul"`` or ``"all"``.
        example_kwargs: its keyword arguments.

    Returns:
        FLOPs of one call, over all rows of the inputs.

    Raises:
        UncountableError: a scripted module, or an operator that nothing is known about; the message names it.
        ConfigError: an unknown convention.

    Example:
        >>> actor = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        >>> count_flops(actor, torch.zeros(1, 2))  # 2·(2·64 + 64·1)
        384
    """
    a_function("module_or_fn", module_or_fn)
    an_instance("example_kwargs", example_kwargs, Mapping, "keyword arguments by name", optional=True)
    counter = CountingMode(convention)
    target = original(module_or_fn)
    try:
        with ExitStack() as stack:
            stack.enter_context(all_quiet())
            stack.enter_context(_alone())
            stack.enter_context(unchanged(target))
            args, kwargs = copied((example_inputs, dict(example_kwargs or {})))
            stack.enter_context(eagerly())
            stack.enter_context(_slow_attention())
            stack.enter_context(counter)
            target(*args, **kwargs)
    except UncountableError as error:
        if isinstance(target, nn.Module) and type(target).__name__ not in str(error):
            raise UncountableError(f"{type(target).__name__}: {error}") from error
        raise
    if counter.refused is not None:
        raise counter.refused
    return counter.flops
