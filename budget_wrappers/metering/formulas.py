"""FLOPs of every torch operator that multiplies matrices, from the shapes of its arguments.

One multiply-accumulate is 2 FLOPs, of complex numbers 8. Each formula receives the output of the operator and then its
arguments as the dispatcher passes them (positional, trailing defaults left out), and returns the FLOPs of its matrix
products. Bias, activation and normalisation are not in here: ``elementwise.py`` adds them for the ``"all"`` convention.

Where ``torch.utils.flop_counter`` has a formula these agree with it, two cases apart: the weight gradient of a grouped
convolution, which torch overstates by the number of groups, and complex products, which torch counts like real ones.
``factorisations.py`` and ``quantised.py`` hold the formulas of their operators; ``PRODUCTS`` is all of them.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.metering.factorisations import FACTORISATIONS, per_product
from budget_wrappers.metering.quantised import QUANTISED, sparse_product, stored_entries

Shape = Sequence[int]
Formula = Callable[..., int]

aten = torch.ops.aten


def matrix_product(rows: int, inner: int, columns: int) -> int:
    """Return the FLOPs of ``(rows, inner) @ (inner, columns)``: ``2 · rows · inner · columns``."""
    return 2 * rows * inner * columns


def nested_sizes(tensor: Tensor) -> list[list[int]]:
    """Return the size of each component of a nested tensor, and of each row of an ordinary one."""
    if not tensor.is_nested:
        return [list(tensor.shape[1:])] * tensor.shape[0]
    if tensor.layout is torch.jagged:
        return [list(part.shape) for part in tensor.unbind()]
    return tensor._nested_tensor_size().tolist()


def _numel(tensor: Tensor) -> int:
    """Return the number of elements; a jagged tensor's own ``numel`` is symbolic."""
    return sum(prod(size) for size in nested_sizes(tensor)) if tensor.is_nested else tensor.numel()


# ---- matrix x matrix, matrix x vector -------------------------------------------------------------------------------


def _mm(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    # A sparse kernel multiplies the stored entries of its sparse side with a row (or column) of the dense one.
    if a.layout is not torch.strided:
        if b.layout is not torch.strided:
            return sparse_product(a, b)
        return 2 * stored_entries(a) * b.shape[-1] * per_product(a)
    if b.layout is not torch.strided:
        return 2 * stored_entries(b) * a.shape[0] * per_product(a)
    return matrix_product(a.shape[0], a.shape[1], b.shape[1]) * per_product(a)


def _addmm(out: Tensor, _: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> int:
    return _mm(out, a, b)


def _bmm(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    if a.is_nested:
        return sum(2 * prod(x) * y[-1] for x, y in zip(nested_sizes(a), nested_sizes(b), strict=True))
    if a.layout is not torch.strided:
        return 2 * stored_entries(a) * b.shape[-1] * per_product(a)
    return a.shape[0] * matrix_product(a.shape[1], a.shape[2], b.shape[2]) * per_product(a)


def _baddbmm(out: Tensor, _: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> int:
    return _bmm(out, a, b)


def _mv(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return 2 * (a.numel() if a.layout is torch.strided else stored_entries(a)) * per_product(a)


def _addmv(out: Tensor, _: Tensor, a: Tensor, *__: Any, **___: Any) -> int:
    return _mv(out, a)


def _foreach_mm(out: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return sum(_mm(o, a, b) for o, a, b in zip(out, left, right, strict=True))


# ---- linear layers in one kernel ------------------------------------------------------------------------------------


def _linear(out: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """``x (…, in) → out (…, out)``, however the weight is packed: every output element is a sum of ``in`` products."""
    if x.is_nested:
        return 2 * _numel(out) * nested_sizes(x)[0][-1]
    return 2 * out.numel() * x.shape[-1] * per_product(x)


def _linear_backward(
    out: Sequence[Tensor | None], x: Tensor, grad: Tensor, weight: Tensor, mask: Sequence[bool]
) -> int:
    return (int(mask[0]) + int(mask[1])) * 2 * _numel(grad) * weight.shape[1]


def _linear_backward_input(out: Tensor, _: Shape, grad: Tensor, weight: Tensor) -> int:
    return 2 * grad.numel() * weight.shape[1]


def _linear_backward_weights(out: Any, grad: Tensor, x: Tensor, *_: Any) -> int:
    return 2 * grad.numel() * x.shape[-1]


def _matmul_backward(out: Any, grad: Tensor, a: Tensor, b: Tensor, mask: Sequence[bool]) -> int:
    """Of nested tensors: each gradient repeats the products of ``a (…, m, k)`` and ``b (…, k, n)``."""
    pairs = zip(nested_sizes(grad), nested_sizes(a), strict=True)
    return (int(mask[0]) + int(mask[1])) * sum(2 * prod(g) * size[-1] for g, size in pairs)


def _affine_grid(out: Tensor, theta: Tensor, *_: Any) -> int:
    """A batched product of the base grid ``(N, H·W, 3)`` (``(N, D·H·W, 4)``) with ``theta`` transposed."""
    return 2 * out.numel() * theta.shape[-1]


def _affine_grid_backward(out: Tensor, grad: Tensor, *_: Any) -> int:
    return 2 * grad.numel() * out.shape[-1]


# ---- convolutions ---------------------------------------------------------------------------------------------------


def _conv(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    """Every output element sums ``C_in/groups · prod(kernel)`` products; padding counts in full, as in torch."""
    return 2 * out.numel() * (weight.numel() // out.shape[1]) if out.numel() else 0


def _conv_transpose(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    """Every *input* element is multiplied with ``C_out/groups · prod(kernel)`` weights."""
    return 2 * x.numel() * (weight.numel() // x.shape[1]) if x.numel() else 0


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> int:
    """``rest`` is (bias, stride, padding, dilation, transposed, …)."""
    return (_conv_transpose if rest[4] else _conv)(out, x, weight)


def _convolution_backward(
    out: Sequence[Tensor | None], grad: Tensor, x: Tensor, weight: Tensor, *rest: Any, **kwargs: Any
) -> int:
    """``rest`` ends in (transposed, output_padding, groups, output_mask).

    The gradients of the input and of the weight repeat the forward's products once each.
    """
    transposed, mask = rest[-4], rest[-1]
    forward = (_conv_transpose if transposed else _conv)(grad, x, weight)
    return (int(mask[0]) + int(mask[1])) * forward


def _named_backward(forward: Formula, grad_first: bool) -> Formula:
    """The backward pass of one library's convolution: its last argument is the output mask."""

    def formula(out: Any, first: Tensor, second: Tensor, weight: Tensor, *rest: Any, **__: Any) -> int:
        grad, x = (first, second) if grad_first else (second, first)
        return (int(rest[-1][0]) + int(rest[-1][1])) * forward(grad, x, weight)

    return formula


def _conv_binary(out: Tensor, x: Tensor, other: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return _conv(out, x, weight)


def _conv_tbc(out: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    return 2 * out.numel() * weight.shape[0] * weight.shape[1]


# ---- attention ------------------------------------------------------------------------------------------------------


def _attention(out: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Scores ``q kᵀ`` and mixture ``p v``: ``2·B·h·T·S·(d_q + d_v)``; a causal mask saves nothing here, as in torch."""
    if q.is_nested:
        parts = zip(nested_sizes(q), nested_sizes(k), nested_sizes(v), strict=True)
        return sum(matrix_product(a[0] * a[1], a[2] + c[2], b[1]) for a, b, c in parts)
    return matrix_product(prod(q.shape[:-1]), q.shape[-1] + v.shape[-1], k.shape[-2])


def _attention_backward(out: Any, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Five products: scores again, ``∂p``, ``∂v``, ``∂q``, ``∂k``."""
    return matrix_product(prod(q.shape[:-1]), 3 * q.shape[-1] + 2 * v.shape[-1], k.shape[-2])


def _token_counts(x: Tensor) -> list[int]:
    """Return the tokens of each sequence of ``x (B, T, E)``, dense or nested."""
    return [size[0] for size in nested_sizes(x)]


def _self_attention(tokens_q: list[int], tokens_k: list[int], nested: bool, embed: int) -> int:
    """The fast path's scores and mixture; over a nested batch it pads both to the longest sequence first."""
    longest_q, longest_k = (max(t, default=0) for t in (tokens_q, tokens_k))
    pairs = len(tokens_q) * longest_q * longest_k if nested else sum(map(int.__mul__, tokens_q, tokens_k))
    return 4 * pairs * embed


def _native_mha(out: Any, query: Tensor, key: Tensor, value: Tensor, embed: int, *_: Any, **__: Any) -> int:
    """Projections of query, key and value, scores, mixture, projection out: ``2·E²`` a token and projection."""
    tokens_q, tokens_k, tokens_v = _token_counts(query), _token_counts(key), _token_counts(value)
    projected = 2 * sum(tokens_q) + sum(tokens_k) + sum(tokens_v)
    return 2 * projected * embed * embed + _self_attention(tokens_q, tokens_k, query.is_nested, embed)


def _encoder_layer(out: Tensor, src: Tensor, embed: int, heads: int, *weights: Any, **__: Any) -> int:
    """``weights[11]`` is the first feed-forward weight ``(F, E)``; the second is its mirror image."""
    tokens = _token_counts(src)
    projections = 4 * embed * embed + 2 * weights[11].numel()
    return 2 * sum(tokens) * projections + _self_attention(tokens, tokens, src.is_nested, embed)


# ---- recurrent layers in one kernel ---------------------------------------------------------------------------------


def _mkldnn_rnn(out: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, *_: Any) -> int:
    """One layer and direction: every row of ``x (T, B, I)`` meets ``(4H, I)``, every state meets ``(4H, H)``.

    The 4H is the LSTM's; a plain RNN has H and a GRU 3H. The weights may come reordered: elements count.
    """
    return 2 * prod(x.shape[:-1]) * (w_input.numel() + w_hidden.numel())


def _mkldnn_rnn_backward(out: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, *_: Any) -> int:
    return 2 * _mkldnn_rnn(out, x, w_input, w_hidden)


def _fused_rnn(out: Any, x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """CuDNN and MIOpen: every weight matrix of every layer and direction meets every row of ``x (T, B, I)``."""
    return 2 * prod(x.shape[:-1]) * sum(weight.numel() for weight in weights if weight.dim() >= 2)


def _mps_rnn(out: Any, x: Tensor, state: Any, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return _fused_rnn(out, x, weights)


def _mps_rnn_backward(out: Any, *args: Any, **__: Any) -> int:
    """``args`` are three gradients, two states, the input, the layers' outputs, the first states, the weights."""
    return 2 * _fused_rnn(out, args[5], args[8])


def _fused_rnn_backward(out: Any, x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return 2 * _fused_rnn(out, x, weights)


# ---- the rest -------------------------------------------------------------------------------------------------------


def _expanded(tensor: Tensor, missing: Sequence[int], dims: int) -> list[int]:
    sizes = iter(tensor.shape)
    return [1 if dim in missing else next(sizes) for dim in range(dims)]


def _pair(left: list[int], right: list[int], summed: list[int]) -> tuple[int, list[int]]:
    """FLOPs and sizes of a product of two tensors summed over ``summed``; with nothing to sum it is elementwise."""
    sizes = list(map(max, left, right))
    return (2 * prod(sizes) if summed else 0), [1 if dim in summed else size for dim, size in enumerate(sizes)]


def _trilinear(
    out: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    missing_a: Shape,
    missing_b: Shape,
    missing_c: Shape,
    summed: Shape,
    unrolled: int = 1,
) -> int:
    """The kernel under ``bilinear`` and its gradients: ``(a · b)`` summed where ``c`` is constant, times ``c``, summed.

    It does so for one index of the dimension ``unrolled`` after the other; a sum over that dimension is no product but
    an addition of the results. ``F.bilinear`` of ``x (B, I)``, ``W (O, I, J)``, ``y (B, J)`` is ``2·B·O·I·J`` for
    ``x W``, then ``2·B·O·J``.
    """
    dims = a.dim() + len(missing_a)
    left, middle, right = (_expanded(t, m, dims) for t, m in ((a, missing_a), (b, missing_b), (c, missing_c)))
    rounds = max(left[unrolled], middle[unrolled], right[unrolled])
    left[unrolled] = middle[unrolled] = right[unrolled] = 1
    within = [dim for dim in summed if dim != unrolled]
    first, inner = _pair(left, middle, [dim for dim in within if dim in missing_c])
    second, _ = _pair(inner, right, [dim for dim in within if dim not in missing_c])
    return rounds * (first + second) * per_product(a)


def _euclidean_dist(out: Tensor, a: Tensor, b: Tensor) -> int:
    """``|a − b|²`` as one product of ``[−2a, |a|², 1]`` with ``[b, 1, |b|²]``."""
    return 2 * out.numel() * (a.shape[-1] + 2)


def _packets(namespace: Any, names: str) -> list[Any]:
    """Return the operators that this build of torch has; some exist only with CUDA, oneDNN or MKL."""
    return [getattr(namespace, name) for name in names.split() if hasattr(namespace, name)]


def _table() -> dict[Any, Formula]:
    mkldnn, mkl = torch.ops.mkldnn, torch.ops.mkl
    groups: list[tuple[Formula, list[Any]]] = [
        (_mm, _packets(aten, "mm _int_mm _scaled_mm _sparse_mm")),
        (_addmm, _packets(aten, "addmm _addmm_activation _sparse_addmm sspaddmm")),
        (_bmm, _packets(aten, "bmm")),
        (_baddbmm, _packets(aten, "baddbmm addbmm")),
        (_mv, _packets(aten, "mv dot vdot")),
        (_addmv, _packets(aten, "addmv")),
        (_foreach_mm, _packets(aten, "_foreach_mm")),
        (_linear, _packets(aten, "mkldnn_linear")),
        (_linear, _packets(mkldnn, "_linear_pointwise")),
        (_linear, _packets(mkl, "_mkl_linear")),
        (_linear_backward, _packets(aten, "linear_backward")),
        (_linear_backward_input, _packets(aten, "mkldnn_linear_backward_input")),
        (_linear_backward_weights, _packets(aten, "mkldnn_linear_backward_weights")),
        (_linear_backward, _packets(aten, "mkldnn_linear_backward")),
        (_matmul_backward, _packets(aten, "matmul_backward")),
        (_affine_grid, _packets(aten, "affine_grid_generator cudnn_affine_grid_generator")),
        (_affine_grid_backward, _packets(aten, "cudnn_affine_grid_generator_backward")),
        (_convolution, _packets(aten, "convolution _convolution convolution_overrideable")),
        (_conv, _packets(aten, "mkldnn_convolution cudnn_convolution cudnn_convolution_relu miopen_convolution")),
        (_conv, _packets(aten, "_slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d")),
        (_conv, _packets(aten, "_conv_depthwise2d conv_depthwise3d miopen_depthwise_convolution _mps_convolution")),
        (_conv, _packets(aten, "cudnn_convolution_add_relu _nnpack_spatial_convolution")),
        (_conv, _packets(aten, "miopen_convolution_relu miopen_convolution_add_relu")),
        (_conv, _packets(mkldnn, "_convolution_pointwise _convolution_pointwise_")),
        (_conv_transpose, _packets(aten, "slow_conv_transpose2d slow_conv_transpose3d cudnn_convolution_transpose")),
        (_conv_transpose, _packets(aten, "miopen_convolution_transpose _mps_convolution_transpose")),
        (_conv_transpose, _packets(mkldnn, "_convolution_transpose_pointwise")),
        (_named_backward(_conv, grad_first=False), _packets(aten, "mps_convolution_backward")),
        (_named_backward(_conv_transpose, grad_first=False), _packets(aten, "mps_convolution_transpose_backward")),
        (_convolution_backward, _packets(aten, "convolution_backward convolution_backward_overrideable")),
        (_conv_tbc, _packets(aten, "conv_tbc")),
        (_attention, _packets(aten, "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention")),
        (_attention, _packets(aten, "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention")),
        (_attention, _packets(aten, "_scaled_dot_product_fused_attention_overrideable")),
        (_attention, _packets(aten, "_scaled_dot_product_attention_math_for_mps")),
        (_attention, _packets(aten, "_cudnn_attention_forward _triton_scaled_dot_attention")),
        (_attention_backward, _packets(aten, "_scaled_dot_product_flash_attention_for_cpu_backward")),
        (_attention_backward, _packets(aten, "_scaled_dot_product_flash_attention_backward")),
        (_attention_backward, _packets(aten, "_scaled_dot_product_efficient_attention_backward")),
        (_attention_backward, _packets(aten, "_scaled_dot_product_cudnn_attention_backward _cudnn_attention_backward")),
        (_attention_backward, _packets(aten, "_scaled_dot_product_fused_attention_overrideable_backward")),
        (_native_mha, _packets(aten, "_native_multi_head_attention _triton_multi_head_attention")),
        (_encoder_layer, _packets(aten, "_transformer_encoder_layer_fwd")),
        (_mkldnn_rnn, _packets(aten, "mkldnn_rnn_layer")),
        (_mkldnn_rnn_backward, _packets(aten, "mkldnn_rnn_layer_backward")),
        (_fused_rnn, _packets(aten, "_cudnn_rnn miopen_rnn")),
        (_fused_rnn_backward, _packets(aten, "_cudnn_rnn_backward miopen_rnn_backward")),
        (_mps_rnn, _packets(aten, "_lstm_mps")),
        (_mps_rnn_backward, _packets(aten, "lstm_mps_backward")),
        (_trilinear, _packets(aten, "_trilinear")),
        (_euclidean_dist, _packets(aten, "_euclidean_dist")),
    ]
    table = FACTORISATIONS | QUANTISED | {packet: formula for formula, packets in groups for packet in packets}
    # These overloads put the tensor that they add before the weight.
    for packet in _packets(mkldnn, "_convolution_pointwise _convolution_pointwise_"):
        table[packet.binary] = _conv_binary
    for overload in (aten._slow_conv2d_backward.output_mask, aten._slow_conv2d_backward.output_mask_out):
        table[overload] = _named_backward(_conv, grad_first=True)  # its third overload has no mask
    # With a tensor to write to, torch hands a linear layer to a mode whole; else as the products that it consists of.
    table[aten.linear.out] = _linear
    return table


PRODUCTS: dict[Any, Formula] = _table()
"""Operator (a packet, or an overload where it differs) → ``(out, *args, **kwargs) -> FLOPs``, in ``"matmul"``."""
