"""What the ``"all"`` convention adds to the matrix products, operator by operator.

For floating-point results:

* 1 FLOP an output element for an elementwise operator (whatever it computes), a bias, a residual, a loss;
* 1 FLOP an input element for a sum, mean, product or norm; a variance takes 3;
* softmax 4 an element (subtract, exponentiate, add, divide); comparisons, so ``max`` and sorting too, are free;
* normalisation 2 an element, 3 more where the statistics are computed from the batch, 2 more with a learned scale;
* nothing for what moves, indexes, casts, quantises, creates or draws numbers, and nothing for integers.

Quantised tensors stand for the floating-point numbers that they encode: the arithmetic of a layer costs the same after
quantisation as before.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.metering.operators import (
    ARITHMETIC,
    COMPARISONS,
    REDUCTIONS,
    base_name,
    functional_packet,
    moves,
    reduces,
)
from budget_wrappers.metering.quantised import recurrent_units, unpacked

Cost = Callable[..., int]

aten = torch.ops.aten


def _floats(value: Any) -> int:
    """Return the number of floating-point elements in an output: a tensor, or the first of several."""
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    if not isinstance(value, Tensor):
        return 0
    return _size(value) if value.is_floating_point() or value.is_complex() or value.is_quantized else 0


def _size(tensor: Tensor) -> int:
    if tensor.is_nested and tensor.layout is torch.jagged:
        return tensor.values().numel()
    if tensor.is_nested:
        return sum(prod(size) for size in tensor._nested_tensor_size().tolist())
    return tensor.numel()


def _nothing(out: Any, *args: Any, **kwargs: Any) -> int:
    return 0


def _each_output(out: Any, *args: Any, **kwargs: Any) -> int:
    return _floats(out)


def _each_input(out: Any, x: Any, *args: Any, **kwargs: Any) -> int:
    return _floats(x) if _floats(out) else 0


def _each_of_list(out: Any, first: Any, *args: Any, **kwargs: Any) -> int:
    """List-wise optimizer arithmetic changes every element of its first list."""
    return sum(map(_floats, first)) if isinstance(first, (tuple, list)) else _floats(out)


def _each_element(out: Tensor, *args: Any, **kwargs: Any) -> int:
    """One FLOP an output element of a kernel that keeps quantised numbers in tensors of plain integers."""
    return out.numel()


def _twice_each_element(out: Tensor, *args: Any, **kwargs: Any) -> int:
    return 2 * out.numel()


def _distances(out: Tensor, a: Tensor, *args: Any, **kwargs: Any) -> int:
    """Subtract, raise, add: 3 FLOPs a pair and coordinate of ``a (…, P, D)``."""
    return 3 * _floats(out) * a.shape[-1]


def _distances_backward(out: Tensor, grad: Tensor, a: Tensor, *args: Any, **kwargs: Any) -> int:
    return 3 * _floats(grad) * a.shape[-1]


def _cross(out: Tensor, *args: Any, **kwargs: Any) -> int:
    """Each coordinate is a difference of two products."""
    return 3 * _floats(out)


def _twice_each_output(out: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * _floats(out)


def _variance(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> int:
    return 3 * _floats(x)


def _softmax(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> int:
    return 4 * _floats(x)


def _normalised(x: Tensor, computed: bool, scaled: bool) -> int:
    return (2 + 3 * computed + 2 * scaled) * _floats(x)


def _layer_norm(out: Any, x: Tensor, shape: Any, weight: Tensor | None = None, *args: Any, **kwargs: Any) -> int:
    return _normalised(x, True, weight is not None)


def _group_norm(out: Any, x: Tensor, weight: Tensor | None = None, *args: Any, **kwargs: Any) -> int:
    return _normalised(x, True, weight is not None)


def _batch_norm(out: Any, x: Tensor, weight: Tensor | None = None, *args: Any, **kwargs: Any) -> int:
    # (bias, running mean, running variance, training, …), or (bias, training, …) without running statistics.
    training = next((arg for arg in args if isinstance(arg, bool)), True)
    return _normalised(x, training, weight is not None)


def _batch_norm_eval(out: Any, x: Tensor, weight: Tensor | None = None, *args: Any, **kwargs: Any) -> int:
    return _normalised(x, False, weight is not None)


_SPECIAL: dict[str, Cost] = {
    # Scale the mask, apply it: outside of inference mode torch runs these two one by one.
    "native_dropout": _twice_each_output,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "_safe_softmax": _softmax,
    "_masked_softmax": _softmax,
    "_nested_tensor_softmax_with_shape": _softmax,
    "var": _variance,
    "std": _variance,
    "var_mean": _variance,
    "std_mean": _variance,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_functional": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm_eval,
    "_batch_norm_with_update": _group_norm,
    "_batch_norm_with_update_functional": _group_norm,
    "_batch_norm_no_update": _batch_norm_eval,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "quantized_batch_norm": _batch_norm_eval,
    "linalg_cross": _cross,
    "_cdist_forward": _distances,
    "_cdist_backward": _distances_backward,
    "_pdist_forward": _distances,
    "_pdist_backward": _distances_backward,
}


def _batch_norm_relu(out: Any, x: Tensor, weight: Tensor | None = None, *args: Any, **kwargs: Any) -> int:
    return _batch_norm_eval(out, x, weight) + _floats(out)


# Kernels of quantised numbers that cost more than 1 FLOP an output element.
_QUANTISED: dict[str, Cost] = {
    **dict.fromkeys(["batch_norm", "batch_norm1d", "batch_norm2d", "batch_norm3d"], _batch_norm_eval),
    **dict.fromkeys(["batch_norm_relu", "batch_norm1d_relu", "batch_norm2d_relu"], _batch_norm_relu),
    "batch_norm3d_relu": _batch_norm_relu,
    **dict.fromkeys(["add_relu", "add_relu_out", "add_scalar_relu", "add_scalar_relu_out"], _twice_each_output),
    **dict.fromkeys(["mul_relu", "mul_relu_out", "mul_scalar_relu", "mul_scalar_relu_out"], _twice_each_output),
    "layer_norm": _layer_norm,
    "group_norm": _layer_norm,  # (input, groups, weight, …)
    "instance_norm": _group_norm,
    "softmax": _softmax,
}

# The same of oneDNN, which keeps them in tensors of plain integers.
_ONEDNN: dict[str, Cost] = {
    "qadd_relu": _twice_each_element,
    "qbatch_norm2d": lambda out, *args, **kwargs: 4 * out.numel(),
}


def elementwise_cost(op: Any) -> Cost:
    """Return the ``"all"`` cost of an operator that ``is_free``, as a function ``(out, *args, **kwargs) -> FLOPs``."""
    name = base_name(op)
    if moves(op) or op.namespace in ("prim", "profiler"):
        return _nothing
    if op.namespace in ("quantized", "_quantized"):
        return _QUANTISED.get(name, _each_output)
    if op.namespace == "onednn":
        return _ONEDNN.get(name, _each_element)
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name in COMPARISONS:
        return _nothing
    if name in REDUCTIONS or (reduces(op) and name not in ARITHMETIC):
        return _each_input
    if name.startswith("_foreach_zero") or name.startswith("_foreach_copy") or name == "_foreach_clone":
        return _nothing
    if name.startswith(("_foreach_", "_fused_")):
        return _each_of_list
    return _each_output


def _bias_of_sum(out: Tensor, *args: Any, **kwargs: Any) -> int:
    return _floats(out)


def _bias_and_activation(out: Tensor, *args: Any, **kwargs: Any) -> int:
    return 2 * _floats(out)


def _bias_third(out: Tensor, x: Tensor, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> int:
    return _floats(out) if isinstance(bias, Tensor) else 0


def _pointwise_linear(out: Tensor, x: Tensor, w: Any, bias: Any = None, attr: Any = "none", *args: Any) -> int:
    """``_linear_pointwise(x, w, bias, attribute, …)``; its binary form takes (x, other, w, bias, attribute)."""
    if isinstance(attr, Tensor) or attr is None:
        return (2 if isinstance(attr, Tensor) else 1) * _floats(out)
    return (int(isinstance(bias, Tensor)) + int(attr != "none")) * _floats(out)


def _attention_scores(out: Any, q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> int:
    """Scale (1) and softmax (4) of every score."""
    return 0 if q.is_nested else 5 * prod(q.shape[:-1]) * k.shape[-2]


def _native_mha(out: Any, query: Tensor, key: Tensor, value: Tensor, embed: int, heads: int, *args: Any) -> int:
    """Four biases and the scale of the query a token, a softmax a score."""
    scores = 0 if query.is_nested else query.shape[0] * heads * query.shape[1] * key.shape[1]
    return 3 * _size(query) + _size(key) + _size(value) + 4 * scores


def _encoder_layer(out: Tensor, src: Tensor, embed: int, heads: int, *weights: Any) -> int:
    """Attention, two residuals and norms (7 each), and the feed-forward's biases and activation."""
    tokens = _size(src) // embed
    return _native_mha(out, src, src, src, embed, heads) + 17 * _size(src) + 2 * tokens * weights[11].shape[0]


def _mkldnn_rnn(out: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, *args: Any) -> int:
    """An LSTM step of H units: two biases (8H), their sum (4H), five activations, four operations on the state."""
    return 21 * prod(x.shape[:-1]) * w_hidden.shape[-1]


def _packed_bias(activations: int, position: int = 0) -> Cost:
    """The bias inside a packed weight, at ``position`` among the arguments after the input, and what is fused to it."""

    def cost(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> int:
        return (activations + (unpacked(args[position])[1] is not None)) * out.numel()

    return cost


def _bias_at(position: int) -> Cost:
    """A bias that is passed by name or at ``position``."""

    def cost(out: Tensor, *args: Any, bias: Any = None, **kwargs: Any) -> int:
        given = bias if bias is not None else args[position] if len(args) > position else None
        return _floats(out) if given is not None else 0

    return cost


# FLOPs an element of the state, by gates: two biases and their sum, activations, the update of the state.
_STATE_COSTS = {4: 21, 3: 16, 1: 4}


def _quantised_cell(gates: int) -> Cost:
    def cost(out: Any, *args: Any, **kwargs: Any) -> int:
        return _STATE_COSTS[gates] * _floats(out)

    return cost


def _quantised_recurrent(gates: int, packed: bool) -> Cost:
    def cost(out: Any, x: Tensor, *rest: Any, **kwargs: Any) -> int:
        state, _, _, layers, _, _, bidirectional, *_ = rest[1:] if packed else rest
        rows, hidden, inputs = recurrent_units(x, state, layers, bidirectional)
        return _STATE_COSTS[gates] * rows * hidden * len(inputs)

    return cost


def _quantised_extras() -> dict[Any, Cost]:
    activations = {
        0: "linear linear_dynamic linear_dynamic_fp16 conv1d conv2d conv3d conv1d_dynamic conv2d_dynamic "
        "conv3d_dynamic conv_transpose1d conv_transpose2d conv_transpose3d conv_transpose1d_dynamic "
        "conv_transpose2d_dynamic conv_transpose3d_dynamic",
        1: "linear_relu linear_leaky_relu linear_tanh linear_relu_dynamic linear_relu_dynamic_fp16 conv1d_relu "
        "conv2d_relu conv3d_relu",
    }
    spaces = (torch.ops.quantized, torch.ops._quantized)
    table = {
        getattr(space, name): _packed_bias(fused)
        for space in spaces
        for fused, names in activations.items()
        for name in names.split()
        if hasattr(space, name)
    }
    fused_sums = {"conv2d_add": 1, "conv2d_add_relu": 2}
    table |= {getattr(torch.ops.quantized, name): _packed_bias(fused, 1) for name, fused in fused_sums.items()}
    cells = {"lstm": 4, "gru": 3, "rnn_relu": 1, "rnn_tanh": 1}
    for name, gates in cells.items():
        table[getattr(torch.ops.quantized, f"quantized_{name}_cell_dynamic")] = _quantised_cell(gates)
    for packet, gates in ((aten.quantized_lstm, 4), (aten.quantized_gru, 3)):
        for overload in packet.overloads():
            table[getattr(packet, overload)] = _quantised_recurrent(gates, packed=overload.startswith("data"))
    return table


_EXTRAS: dict[Any, Cost] = {
    **_quantised_extras(),
    **{
        getattr(aten, name): _bias_of_sum
        for name in ["addmm", "baddbmm", "addbmm", "addmv", "cudnn_convolution_relu", "mkldnn_linear"]
    },
    aten._addmm_activation: _bias_and_activation,
    aten.cudnn_convolution_add_relu: _bias_and_activation,
    aten.convolution: _bias_third,
    aten._convolution: _bias_third,
    aten.mkldnn_convolution: _bias_third,
    aten.linear: _bias_third,
    aten._scaled_mm: _bias_at(4),
    aten._grouped_mm: _bias_at(3),
    aten._native_multi_head_attention: _native_mha,
    aten._transformer_encoder_layer_fwd: _encoder_layer,
    aten.mkldnn_rnn_layer: _mkldnn_rnn,
    **{
        getattr(aten, name): _attention_scores
        for name in [
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ]
    },
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _EXTRAS[torch.ops.mkldnn._linear_pointwise] = _pointwise_linear


def product_extras(op: Any) -> Cost:
    """Return what ``"all"`` adds to a matrix product's own FLOPs: the bias, activation or softmax in its kernel."""
    return _EXTRAS.get(op) or _EXTRAS.get(functional_packet(op), _nothing)
