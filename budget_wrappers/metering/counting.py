"""Counting the FLOPs that torch really runs: a dispatch mode of our own, and ``count_flops`` on top of it."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from budget_wrappers.arguments import a_function, an_instance
from budget_wrappers.core import Convention, Unknown
from budget_wrappers.errors import ConfigError, UncountableError
from budget_wrappers.metering.checks import CONVENTIONS, check_convention, check_unknown
from budget_wrappers.metering.elementwise import elementwise_cost, product_extras
from budget_wrappers.metering.factorisations import FACTORISATIONS
from budget_wrappers.metering.formulas import PRODUCTS, Formula
from budget_wrappers.metering.isolation import SlowAttention, alone, eagerly, never_compile, one_at_a_time
from budget_wrappers.metering.operators import composite_key, functional_packet, is_composite, is_free, is_jagged
from budget_wrappers.metering.quiet import all_quiet
from budget_wrappers.metering.randomness import SEEDED, OwnGenerators
from budget_wrappers.metering.row_operators import BY_DATA, WHOLE_BATCH, reads_data
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
        ConfigError: ``op`` is not an operator, or one whose formula is built in. The formulas of ``factorisations.py``
            can be replaced, as a leading term is a convention.
    """
    op = getattr(op, "_opoverload", op)
    if not isinstance(op, (OpOverload, OpOverloadPacket)):
        raise ConfigError(
            f"register_flop_formula got {op!r} of type {type(op).__name__}; expected an operator such as "
            "torch.ops.mylib.foo. A Python function needs none: what it calls is counted."
        )
    a_function("formula", formula)
    packets = [functional_packet(getattr(op, overload)) for overload in getattr(op, "overloads", list)()]
    if not (PRODUCTS.keys() - FACTORISATIONS.keys()).isdisjoint(packets or [functional_packet(op)]):
        raise ConfigError(f"{op} has a built-in formula already; register only operators that count_flops names")

    def handler(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
        shapes = tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, (args, kwargs, out))
        return int(formula(*shapes[0], out_shape=shapes[2], **shapes[1]))

    _REGISTERED[op] = handler
    for handlers in _HANDLERS.values():
        handlers.clear()


def _handler_from(op: OpOverload, *formulas: Formula) -> Handler:
    """Return the sum of ``formulas``; each gets the results of ``op`` once, wherever these were written to."""
    written = {argument.name for argument in op._schema.arguments if argument.is_out}
    if not written and len(formulas) == 1:
        (formula,) = formulas
        return lambda args, kwargs, out: formula(out, *args, **kwargs)

    def handler(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
        if written and kwargs:
            kwargs = {name: value for name, value in kwargs.items() if name not in written}
        return sum([formula(out, *args, **kwargs) for formula in formulas])

    return handler


def _classify(op: OpOverload, convention: Convention) -> Handler:
    """Return how ``op`` is counted; raises UncountableError where nothing is known about it."""
    packet = functional_packet(op)
    for known in (op, op.overloadpacket, packet):
        if known in _REGISTERED:
            return _REGISTERED[known]
        if known in PRODUCTS:
            return _handler_from(op, PRODUCTS[known], *([product_extras(op)] if convention == "all" else []))
    free = is_free(op)
    if free and convention == "matmul":
        return _free
    # Outside of inference mode torch takes a composite operator apart before any mode sees it; here its parts cost
    # something too, so it is always taken apart.
    if is_composite(op):
        return _decompose
    if free:
        return _handler_from(op, elementwise_cost(op))
    from torch.utils.flop_counter import flop_registry  # formulas that the user gave to torch

    if packet in flop_registry:
        theirs = flop_registry[packet]
        return lambda args, kwargs, out: int(theirs(*args, **kwargs, out_val=out))
    raise UncountableError(_unknown(str(op)))


def _unknown(op: str) -> str:
    return (
        f"operator {op} has no FLOP formula; expected a matrix product, convolution or factorisation that is known, or "
        f"an operator known to hold none. Teach it with register_flop_formula(torch.ops.{op}, formula), or count 0 for "
        "it by count_flops(…, unknown='warn')."
    )


Known = tuple[Handler, int]
"""How an operator is counted, and which of the numbers below it is: looked up once, as operators are slow keys."""
_ORDINARY, _READING, _WHOLE = 0, 1, 2

_HANDLERS: dict[Convention, dict[Any, Known]] = {convention: {} for convention in CONVENTIONS}


class CountingMode(TorchDispatchMode):
    """Adds up the FLOPs of everything that runs inside, backward passes included.

    Args:
        convention: what to count.
        unknown: ``"raise"`` refuses an operator that nothing is known about; ``"warn"`` counts 0 for it and warns once.
        generators: where random operators draw from; ``None`` leaves that to torch.
        where: whether what runs now is to be counted: torch has one mode for all tasks of a thread. ``None``: all is.

    Attributes:
        flops: what has run so far.
        enabled: nothing is counted, and nothing refused, while False.
        traced: whether the three below are noted; somebody has to ask what rows cost.
        leading: first dimensions of what counted operators returned.
        data_dependent: whether an operator has run whose result's shape, or what Python reads of it, is data.
        random: whether one has drawn random numbers.
        trace: what ran, as one number: FLOPs and shapes of the operators that were counted, in order.
    """

    # Without this torch refuses to run torch.cond and its kind under a mode; here they get an error that names them.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the method below: that loads its compiler (seconds) and costs on every operator."""
        return False

    def __init__(
        self,
        convention: Convention = "matmul",
        generators: OwnGenerators | None = None,
        unknown: Unknown = "raise",
        where: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__()
        self.convention = check_convention(convention)
        self._unknown = check_unknown(unknown)
        self._ignored: set[str] = set()
        self.flops = 0
        self.enabled = True
        self.traced = False
        self.leading: set[int] = set()
        self.data_dependent = self.random = False
        self.trace = 0
        self._generators, self._where = generators, where
        self.refused: UncountableError | None = None
        self._handlers = _HANDLERS[convention]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and add its FLOPs."""
        kwargs = kwargs or {}
        if self._where is not None and not self._where():
            return func(*args, **kwargs)
        handler, sort = self._handlers.get(func) or self._handler(func)
        if self.traced:
            self.data_dependent = self.data_dependent or (sort == _READING and reads_data(func, args))
            self.random = self.random or SEEDED in getattr(func, "tags", ())
        if handler is _free or not self.enabled:
            return func(*args, **kwargs) if self._generators is None else self._run(func, args, kwargs)
        if handler is _decompose:
            if any(map(is_jagged, types)):
                return NotImplemented  # such a tensor takes the operator apart itself, and its parts come back here
            with self:
                # torch's own kernel, as outside of inference mode; func.decompose() prefers a version in Python, made
                # for compilers, whose parts are others (interpolation as indexing and arithmetic).
                return func._op_dk(composite_key(func, args), *args, **kwargs)
        if handler is _branch:
            condition, taken, other, operands = args
            with self:
                return (taken if condition else other)(*operands)
        if handler is _answered_elsewhere:
            return NotImplemented if types else func(*args, **kwargs)
        out = func(*args, **kwargs) if self._generators is None else self._run(func, args, kwargs)
        if "out" in kwargs:
            # A formula gets the result once, wherever it was written to.
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        flops = handler(args, kwargs, out)
        if flops:
            self.flops += flops
            if self.traced:
                self._note_rows(flops, out, sort)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if SEEDED in getattr(func, "tags", ()):
            if is_composite(func):
                with self:
                    return func._op_dk(composite_key(func, args), *args, **kwargs)
            return self._generators.run(func, args, kwargs)
        return func(*args, **kwargs)

    def _note_rows(self, flops: int, out: Any, sort: int) -> None:
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        shape: tuple[int, ...] = tuple(first.shape) if isinstance(first, Tensor) and not first.is_nested else ()
        self.trace = hash((self.trace, flops, shape))
        if shape and sort != _WHOLE:
            self.leading.add(shape[0])

    def shared_evenly(self, rows: int) -> bool:
        """Tell whether each of ``rows`` seems to have cost the same: each operator has run on all, or on parts of all.

        It is asked where a row cannot be run by itself, as watched modules inside are charged apart.
        """
        if self.data_dependent:
            return self.leading <= {rows}
        return all(dimension and dimension % rows == 0 for dimension in self.leading)

    def _handler(self, func: Any) -> Known:
        if str(func) in _ANSWERED_ELSEWHERE:
            handler = _answered_elsewhere
        elif not self.enabled:
            return _free, _ORDINARY
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
                if self._unknown == "warn":
                    self._ignore(str(func), error)
                    return _free, _ORDINARY  # for this counter only: others may refuse the operator
                # A model may catch what its layers raise: whoever reads the count must still learn of it.
                self.refused = error
                raise
        reading, whole = func in BY_DATA, getattr(func, "overloadpacket", None) in WHOLE_BATCH
        known = self._handlers[func] = handler, _READING if reading else _WHOLE if whole else _ORDINARY
        return known

    def _ignore(self, op: str, reason: UncountableError) -> None:
        if op not in self._ignored:
            self._ignored.add(op)
            warnings.warn(f"{op} counts 0 FLOPs, as unknown='warn' was asked for: {reason}", stacklevel=4)


never_compile(CountingMode.__torch_dispatch__)


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


def count_flops(
    module_or_fn: Callable[..., Any],
    *example_inputs: Any,
    convention: Convention = "matmul",
    example_kwargs: Mapping[str, Any] | None = None,
    unknown: Unknown = "raise",
) -> int:
    """Run ``module_or_fn`` once on copies of ``example_inputs`` and return the FLOPs of that run.

    The answer is the same with gradients, under ``torch.no_grad()`` and under ``torch.inference_mode()``. In the
    ``"matmul"`` convention it equals ``torch.utils.flop_counter.FlopCounterMode`` wherever that sees every product,
    and the formula (``formulas.py``) where torch reports 0 or too little: fused LSTMs and attention, bilinear layers,
    products of a matrix and a vector or of complex numbers, quantised layers, and the leading terms of factorisations,
    solvers and Fourier transforms (``factorisations.py``). ``"all"`` adds what ``elementwise.py`` lists.

    A module that branches on data is counted by the branch that these inputs take. A padded batch in an attention
    layer is counted in full. What ``torch.compile`` returned is counted through the module that it was given.

    Nothing else changes: inputs, buffers, other state that the modules hold, gradients and random generators are as
    before, and no meter is charged. Of a plain function that holds only for what its arguments and its closure show.

    Args:
        module_or_fn: a module, or any function of torch tensors. A function may call ``backward``.
        *example_inputs: its positional arguments, of the shapes to count for.
        convention: ``"matmul"`` or ``"all"``.
        example_kwargs: its keyword arguments.
        unknown: what happens at an operator that nothing is known about: ``"raise"``, or ``"warn"``, which counts
            0 FLOPs for the operator and warns once with its name.

    Returns:
        FLOPs of one call, over all rows of the inputs.

    Raises:
        UncountableError: a scripted module, or an operator that nothing is known about; the message names it.
        ConfigError: an unknown convention, or ``unknown`` is neither of its values.

    Example:
        >>> actor = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        >>> count_flops(actor, torch.zeros(1, 2))  # 2·(2·64 + 64·1)
        384
    """
    a_function("module_or_fn", module_or_fn)
    an_instance("example_kwargs", example_kwargs, Mapping, "keyword arguments by name", optional=True)
    counter = CountingMode(convention, OwnGenerators(), unknown)
    target = original(module_or_fn)
    try:
        with one_at_a_time(), ExitStack() as stack:
            stack.enter_context(all_quiet())
            stack.enter_context(alone())
            stack.enter_context(unchanged(target))
            args, kwargs = copied((example_inputs, dict(example_kwargs or {})))
            stack.enter_context(eagerly())
            stack.enter_context(SlowAttention())
            stack.enter_context(counter)
            target(*args, **kwargs)
    except UncountableError as error:
        if isinstance(target, nn.Module) and type(target).__name__ not in str(error):
            raise UncountableError(f"{type(target).__name__}: {error}") from error
        raise
    if counter.refused is not None:
        raise counter.refused
    return counter.flops
