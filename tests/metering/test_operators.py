"""What is known about each operator of torch: a product, free, or one of the few listed here, each with its reason."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # its operators are known once it is loaded
from torch._ops import OpOverload
from torch.nn import functional as F

from budget_wrappers.errors import ConfigError, UncountableError
from budget_wrappers.metering import count_flops, counting, elementwise, operators, register_flop_formula
from budget_wrappers.metering.formulas import PRODUCTS

# A new version of torch that has operators which nothing is known about fails the test below: give each a formula in
# formulas.py, factorisations.py or quantised.py, list it as free in operators.py, or give the reason here.
UNKNOWN = {
    "aten._cslt_sparse_mm_search": "tries kernels for a shape and returns a number: the products are many and unused",
    "aten._flash_attention_forward_no_dropout_inplace": "lengths of sequences are data; CUDA only",
    "aten._foobar.": "torch's own test",
    "aten._slow_conv2d_backward.grad_input": "which gradients are asked for cannot be seen from the arguments",
    "aten._spsolve": "a sparse direct solver: the fill-in is data; CUDA only",
    "aten._test_autograd_multiple_dispatch": "torch's own test",
    "aten._test_functorch_fallback": "torch's own test",
    "aten._test_optional_filled_intlist": "torch's own test",
    "aten._test_optional_floatlist": "torch's own test",
    "aten._test_optional_intlist": "torch's own test",
    "aten._test_parallel_materialize": "torch's own test",
    "aten._test_warn_in_autograd": "torch's own test",
}

# Namespaces of kernels that Python code calls by running eagerly. Compilers emit the others (prims, inductor,
# static_runtime), or several processes with GPUs do (symm_mem).
EAGER = ["aten", "quantized", "_quantized", "quantized_decomposed", "quantization", "sparse", "onednn", "mkldnn", "mkl"]
EAGER += ["c10d", "_c10d_functional"]


def overloads(namespaces: list[str]) -> Iterator[OpOverload]:
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        namespace, _, rest = full.partition("::")
        if namespace in namespaces:
            name, _, overload = rest.partition(".")
            yield getattr(getattr(getattr(torch.ops, namespace), name), overload or "default")


def takes_tensors(op: OpOverload) -> bool:
    return any("Tensor" in str(argument.type) or "Params" in str(argument.type) for argument in op._schema.arguments)


@pytest.mark.parametrize("convention", ["matmul", "all"])
def test_each_eager_operator_has_a_formula_or_is_known_to_be_free_or_is_listed_with_a_reason(convention: str) -> None:
    unknown = set()
    for op in filter(takes_tensors, overloads(EAGER)):
        try:
            counting._classify(op, convention)
        except UncountableError:
            unknown.add(str(op))
    assert {name for name in unknown if not name.startswith(tuple(UNKNOWN))} == set()
    assert {name for name in UNKNOWN if not any(op.startswith(name) for op in unknown)} == set()


def _arguments(op: OpOverload) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Yield the fewest and the most arguments that the dispatcher may pass."""
    positional = [argument for argument in op._schema.arguments if not argument.kwarg_only]
    named = [argument for argument in op._schema.arguments if argument.kwarg_only and not argument.is_out]
    yield (
        [None for argument in positional if not argument.has_default_value()],
        {argument.name: None for argument in named if not argument.has_default_value()},
    )
    yield [None] * len(positional), {argument.name: None for argument in named}


def refusals(op: OpOverload, formula: Any) -> list[str]:
    """Return what ``formula`` refuses of the arguments of ``op``."""
    signature, refused = inspect.signature(formula), []
    for args, kwargs in _arguments(op):
        try:
            signature.bind("out", *args, **kwargs)
        except TypeError as error:
            refused.append(f"{op} with {len(args)} arguments: {error}")
    return refused


def test_each_formula_of_a_product_accepts_whatever_the_dispatcher_may_pass_to_its_operator() -> None:
    refused = []
    for known, formula in PRODUCTS.items():
        ops = [known] if isinstance(known, OpOverload) else [getattr(known, name) for name in known.overloads()]
        for op in ops:
            if op is known or op not in PRODUCTS:  # an overload may have a formula of its own
                refused += refusals(op, formula) + refusals(op, elementwise.product_extras(op))
    assert refused == []


def test_each_cost_of_a_free_operator_accepts_whatever_the_dispatcher_may_pass_to_it() -> None:
    free = filter(operators.is_free, filter(takes_tensors, overloads(EAGER)))
    assert [refused for op in free for refused in refusals(op, elementwise.elementwise_cost(op))] == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_torchs_layers_written_in_python_are_taken_apart(mode: type) -> None:
    chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)
    x, weight, target = torch.ones(6, 4), torch.ones(9, 4), torch.zeros(6, dtype=torch.int64)
    with mode():
        flops = count_flops(lambda: F.linear_cross_entropy(x, weight, target, reduction="none", options=chunks))
    assert flops == 2 * 6 * 4 * 9


# ---- operators that nothing is known about --------------------------------------------------------------------------


LIBRARY = torch.library.Library("budget_wrappers_operators", "DEF")
LIBRARY.define("unheard(Tensor x) -> Tensor")
LIBRARY.impl("unheard", lambda x: x + 1, "CompositeExplicitAutograd")


def twice_unheard(x: torch.Tensor) -> torch.Tensor:
    unheard = torch.ops.budget_wrappers_operators.unheard
    return unheard(unheard(x)) @ x


def test_warn_counts_nothing_for_an_unknown_operator_and_names_it_once() -> None:
    with pytest.warns(UserWarning, match=r"budget_wrappers_operators\.unheard.*counts 0 FLOPs") as caught:
        flops = count_flops(twice_unheard, torch.ones(3, 3), unknown="warn")
    assert (flops, len(caught)) == (54, 1)


def test_a_count_that_warned_does_not_teach_the_next_one() -> None:
    with pytest.warns(UserWarning, match="unheard"):
        count_flops(twice_unheard, torch.ones(3, 3), unknown="warn")
    with pytest.raises(UncountableError, match="unheard"):
        count_flops(twice_unheard, torch.ones(3, 3))


def test_an_unknown_operator_is_refused_unless_asked_otherwise_and_the_message_says_how() -> None:
    with pytest.raises(UncountableError, match=r"unheard.*unknown='warn'"):
        count_flops(twice_unheard, torch.ones(3, 3), unknown="raise")


@pytest.mark.parametrize("unknown", ["ignore", None, True])
def test_unknown_is_raise_or_warn(unknown: object) -> None:
    with pytest.raises(ConfigError, match=r"unknown=.*expected one of 'raise', 'warn'"):
        count_flops(torch.relu, torch.ones(2), unknown=unknown)


def test_the_leading_term_of_a_factorisation_can_be_replaced_by_a_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_REGISTERED", {})
    monkeypatch.setattr(counting, "_HANDLERS", {convention: {} for convention in counting._HANDLERS})
    register_flop_formula(torch.ops.aten.linalg_matrix_exp, lambda a, out_shape, **_: 7 * a[-1])
    assert count_flops(torch.matrix_exp, torch.eye(3)) == 21
