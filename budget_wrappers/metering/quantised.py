"""FLOPs of the kernels that torch's own quantisation, its sparse matrices and its packed weights run.

One multiply-accumulate is 2 operations, of integers too: a layer costs after quantisation what it cost before. The
shape of a packed weight comes from unpacking it, or from the shapes of input and output where these say it.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.errors import UncountableError
from budget_wrappers.metering.factorisations import per_product

Formula = Callable[..., int]

aten, quantized = torch.ops.aten, torch.ops.quantized


def _linear(out: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """``x (…, in) → out (…, out)``: every output element is a sum of ``in`` products."""
    return 2 * out.numel() * x.shape[-1]


# ---- convolutions ---------------------------------------------------------------------------------------------------


def unpacked(packed: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a packed weight.

    Raises:
        UncountableError: a backend that cannot show what it packed.
    """
    try:
        return packed.unpack()
    except RuntimeError as error:
        raise UncountableError(
            f"the weight of a quantised layer cannot be unpacked, so its FLOPs are unknown ({error}); expected one "
            "that shows its shape. Quantise the layer while torch.backends.quantized.engine is another, 'x86' say, or "
            "charge its FLOPs by meter.add(flops)."
        ) from error


def _conv(out: Tensor, x: Tensor, packed: Any, *_: Any, **__: Any) -> int:
    """Every output element sums ``C_in/groups · prod(kernel)`` products."""
    return 2 * out.numel() * (unpacked(packed)[0].numel() // out.shape[1]) if out.numel() else 0


def _conv_add(out: Tensor, x: Tensor, accumulated: Tensor, packed: Any, *_: Any, **__: Any) -> int:
    return _conv(out, x, packed)


def _conv_transpose(out: Tensor, x: Tensor, packed: Any, *_: Any, **__: Any) -> int:
    """Every *input* element is multiplied with ``C_out/groups · prod(kernel)`` weights."""
    return 2 * x.numel() * (unpacked(packed)[0].numel() // x.shape[1]) if x.numel() else 0


def _onednn_conv(out: Tensor, x: Tensor, scale: Any, zero: Any, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * out.numel() * (weight.numel() // out.shape[1]) if out.numel() else 0


# ---- recurrent layers and cells -------------------------------------------------------------------------------------


def recurrent_units(
    x: Tensor, state: Tensor | Sequence[Tensor], layers: int, bidirectional: bool
) -> tuple[int, int, list[int]]:
    """Return rows, hidden units and the inputs of each layer and direction of ``x (…, I)`` or packed ``(rows, I)``."""
    hidden = (state if isinstance(state, Tensor) else state[0]).shape[-1]
    directions = 1 + bool(bidirectional)
    inputs = [x.shape[-1]] * directions + [directions * hidden] * directions * (layers - 1)
    return prod(x.shape[:-1]), hidden, inputs


def _recurrent(gates: int, packed: bool) -> Formula:
    """A quantised LSTM (4 gates) or GRU (3): ``2·rows·gates·H·(I + H)`` a layer and direction."""

    def formula(out: Any, x: Tensor, *rest: Any, **__: Any) -> int:
        # (batch sizes of a packed sequence,) state, weights, has biases, layers, dropout, training, bidirectional, …
        state, _, _, layers, _, _, bidirectional, *_ = rest[1:] if packed else rest
        rows, hidden, inputs = recurrent_units(x, state, layers, bidirectional)
        return sum(2 * rows * gates * hidden * (size + hidden) for size in inputs)

    return formula


def _cell(gates: int) -> Formula:
    def formula(out: Any, x: Tensor, *_: Any, **__: Any) -> int:
        state = out if isinstance(out, Tensor) else out[0]
        return 2 * state.numel() * gates * (x.shape[-1] + state.shape[-1])

    return formula


# ---- sparse matrices and structured weights -------------------------------------------------------------------------


def _block_sparse_linear(out: Tensor, x: Tensor, packed: Any, *_: Any) -> int:
    """``torch.ao.nn.sparse``: the kernel multiplies the blocks of the weight that hold anything but zeros."""
    weight, _, (rows, columns) = torch.ops.sparse.qlinear_unpack(packed)
    stored = weight.dequantize() != 0
    down, across = -(-stored.shape[0] // rows), -(-stored.shape[1] // columns)
    padded = stored.new_zeros(down * rows, across * columns)
    padded[: stored.shape[0], : stored.shape[1]] = stored
    blocks = int(padded.view(down, rows, across, columns).any(3).any(1).sum())
    return 2 * prod(x.shape[:-1]) * blocks * rows * columns


def stored_entries(sparse: Tensor) -> int:
    """Return the number of entries that a sparse tensor stores, those of its blocks included."""
    return (sparse._values() if sparse.layout is torch.sparse_coo else sparse.values()).numel()


def sparse_product(a: Tensor, b: Tensor) -> int:
    """Return the FLOPs of ``a @ b``, both sparse: each entry of a's column j meets each entry of b's row j."""
    columns, rows = a.to_sparse_coo()._indices()[1], b.to_sparse_coo()._indices()[0]
    size = a.shape[1]
    pairs = torch.bincount(columns, minlength=size) * torch.bincount(rows, minlength=size)
    return 2 * int(pairs.sum()) * per_product(a)


def _sparse_sparse(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return sparse_product(a, b)


def _sampled(out: Tensor, pattern: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """The entries of ``a @ b`` that the pattern stores."""
    return 2 * stored_entries(pattern) * a.shape[-1] * per_product(a)


def _sparse_reduce(out: Any, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return 2 * stored_entries(a) * b.shape[-1] * per_product(a)


def _sparse_reduce_backward(
    out: Any, a: Tensor, grad: Tensor, weight: Tensor, reduce: str, chosen: Any, mask: Sequence[bool], *_: Any
) -> int:
    return (int(mask[0]) + int(mask[1])) * 2 * stored_entries(a) * grad.shape[-1]


def _two_of_four_linear(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    """A weight with two of every four entries stored as ``(out, in/2)``: the stored ones are multiplied."""
    return 2 * out.numel() * weight.shape[1]


def _two_of_four(out: Tensor, a: Tensor, meta: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return 2 * a.numel() * b.shape[-1]


def _two_of_four_addmm(out: Tensor, added: Tensor, a: Tensor, meta: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _two_of_four(out, a, meta, b)


def _cusparselt(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """``a`` is a compressed blob: half of the ``b.shape[0]`` products of every output element are stored."""
    return out.numel() * b.shape[0]


# ---- scaled and grouped products ------------------------------------------------------------------------------------


def _product(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """Every output element is a sum over the last dimension of ``a``, batched or not."""
    return 2 * out.numel() * a.shape[-1]


def _grouped(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """Groups side by side in rows, columns or the summed dimension, ``(M, K) · (K, N)``; else a batch of products."""
    if a.dim() == 2 and b.dim() == 2:  # out (G, M, N): the groups share K
        return 2 * a.numel() * b.shape[-1]
    return 2 * out.numel() * a.shape[-1]


def _four_bit(out: Tensor, x: Tensor, weight: Tensor, block: int, inputs: int, outputs: int) -> int:
    return 2 * out.numel() * inputs


def _quantized_names(names: str) -> list[Any]:
    """Return the operators of these names in torch's library of quantised kernels and in its older namespace."""
    spaces = (quantized, torch.ops._quantized)
    return [getattr(space, name) for space in spaces for name in names.split() if hasattr(space, name)]


def _names(namespace: Any, names: str) -> list[Any]:
    return [getattr(namespace, name) for name in names.split() if hasattr(namespace, name)]


def _table() -> dict[Any, Formula]:
    groups: list[tuple[Formula, list[Any]]] = [
        (_linear, _quantized_names("linear linear_relu linear_leaky_relu linear_tanh linear_dynamic")),
        (_linear, _quantized_names("linear_relu_dynamic linear_dynamic_fp16 linear_relu_dynamic_fp16")),
        (_linear, _quantized_names("linear_dynamic_fp16_unpacked_weight int4mm_packed_weight_cpu")),
        (_linear, _quantized_names("linear_with_input_q_dq_qweight_dq_output_fp32")),
        (_linear, _quantized_names("linear_with_input_q_dq_qweight_dq_relu_output_fp32")),
        (_linear, _quantized_names("wrapped_quantized_linear _wrapped_quantized_linear_prepacked")),
        (_linear, _quantized_names("wrapped_fbgemm_linear_fp16_weight")),
        (_linear, _names(torch.ops.onednn, "qlinear_pointwise linear_dynamic_fp16 linear_relu_dynamic_fp16")),
        (_linear, _names(aten, "_weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu")),
        (_linear, _names(aten, "_weight_int4pack_mm_with_scales_and_zeros _mixed_dtypes_linear")),
        (_four_bit, _names(aten, "_dyn_quant_matmul_4bit")),
        (_product, _quantized_names("matmul")),
        (_product, _names(aten, "_scaled_mm_v2")),
        (_grouped, _names(aten, "_grouped_mm _scaled_grouped_mm _scaled_grouped_mm_v2")),
        (_conv, _quantized_names("conv1d conv2d conv3d conv1d_relu conv2d_relu conv3d_relu")),
        (_conv, _quantized_names("conv1d_dynamic conv2d_dynamic conv3d_dynamic")),
        (_conv_add, _quantized_names("conv2d_add conv2d_add_relu")),
        (_conv_transpose, _quantized_names("conv_transpose1d conv_transpose2d conv_transpose3d")),
        (_conv_transpose, _quantized_names("conv_transpose1d_dynamic conv_transpose2d_dynamic")),
        (_conv_transpose, _quantized_names("conv_transpose3d_dynamic")),
        (_onednn_conv, _names(torch.ops.onednn, "qconv_pointwise qconv1d_pointwise qconv2d_pointwise")),
        (_onednn_conv, _names(torch.ops.onednn, "qconv3d_pointwise")),
        (_cell(4), _quantized_names("quantized_lstm_cell_dynamic")),
        (_cell(3), _quantized_names("quantized_gru_cell_dynamic")),
        (_cell(1), _quantized_names("quantized_rnn_relu_cell_dynamic quantized_rnn_tanh_cell_dynamic")),
        (_block_sparse_linear, _names(torch.ops.sparse, "qlinear qlinear_relu qlinear_dynamic qlinear_relu_dynamic")),
        (_sparse_sparse, _names(aten, "_sparse_sparse_matmul")),
        (_sampled, _names(aten, "sparse_sampled_addmm")),
        (_sparse_reduce, _names(aten, "_sparse_mm_reduce_impl hspmm")),
        (_sparse_reduce_backward, _names(aten, "_sparse_mm_reduce_impl_backward")),
        (_two_of_four_linear, _names(aten, "_sparse_semi_structured_linear")),
        (_two_of_four, _names(aten, "_sparse_semi_structured_mm")),
        (_two_of_four_addmm, _names(aten, "_sparse_semi_structured_addmm")),
        (_cusparselt, _names(aten, "_cslt_sparse_mm")),
    ]
    table = {packet: formula for formula, packets in groups for packet in packets}
    for gates, packets in ((4, _names(aten, "quantized_lstm")), (3, _names(aten, "quantized_gru"))):
        for packet in packets:
            for overload in packet.overloads():
                table[getattr(packet, overload)] = _recurrent(gates, packed=overload.startswith("data"))
    return table


QUANTISED: dict[Any, Formula] = _table()
"""Operator → ``(out, *args, **kwargs) -> FLOPs``, in ``"matmul"``; ``elementwise.py`` adds biases for ``"all"``."""
