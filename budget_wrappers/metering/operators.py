"""Which torch operators are known to multiply no matrices.

Views are, and what torch itself tags as elementwise, a reduction or a view's copy, and what is listed here by name.
An operator that is neither these nor a product with a formula is *not* assumed to be free: counting it is refused.
"""

from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators that copy, index, create, draw, compare or describe: 0 FLOPs in both conventions.
MOVES = _names(
    """
    __ilshift__ __irshift__ _amp_foreach_non_finite_check_and_unscale _amp_update_scale _assert_async
    _assert_scalar _assert_tensor_metadata _chunk_cat _coalesce _coalesced _conj _conj_copy
    _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _convert_weight_to_int4pack
    _convert_weight_to_int4pack_for_cpu _copy_from _copy_from_and_resize _cslt_compress _cudnn_init_dropout_state
    _cudnn_rnn_flatten_weight _cummax_helper _cummin_helper _dimI _dimV _dyn_quant_pack_4bit_weight
    _efficientzerotensor _empty_affine_quantized _empty_per_channel_affine_quantized _fill_mem_eff_dropout_mask
    _functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
    _functional_sym_constrain_range_for_size _fused_sdp_choice _has_same_storage_numel _histogramdd_bin_edges
    _histogramdd_from_bin_cts _histogramdd_from_bin_tensors _index_put_impl _is_all_true _is_any_true
    _jagged_to_padded_dense_forward _lazy_clone _linalg_check_errors _local_scalar_dense _make_dep_token
    _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor _mkldnn_reshape _mkldnn_transpose
    _nested_compute_contiguous_strides_offsets _nested_from_padded _nested_from_padded_and_nested_example
    _nested_from_padded_tensor _nested_get_jagged_dummy _nested_get_lengths _nested_get_max_seqlen
    _nested_get_min_seqlen _nested_get_offsets _nested_get_ragged_idx _nested_select_backward
    _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list
    _nested_tensor_size _nested_tensor_storage_offsets _nested_tensor_strides _nested_view_from_buffer
    _nested_view_from_jagged _new_zeros_with_same_feature_meta _nnz _pack_padded_sequence
    _padded_dense_to_jagged_forward _philox_key_fold_in _philox_key_split _philox_normal _philox_uniform
    _pin_memory _print _reshape_alias _reshape_copy _resize_output _sample_dirichlet
    _sparse_compressed_tensor_with_dims _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors
    _sparse_mask_projection _sparse_semi_structured_apply _sparse_semi_structured_apply_dense
    _sparse_semi_structured_tile _spdiags _stack _standard_gamma _thnn_differentiable_lstm_cell_backward _to_copy
    _to_dense _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr _to_sparse_semi_structured
    _unique _unique2 _unsafe_index _unsafe_masked_index _unsafe_view _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _use_cudnn_ctc_loss _use_miopen_ctc_loss
    _validate_compressed_sparse_indices adaptive_max_pool2d adaptive_max_pool2d_backward adaptive_max_pool3d
    adaptive_max_pool3d_backward alias allclose aminmax arange argsort as_strided_scatter bartlett_window bernoulli
    binomial blackman_window block_diag bucketize cat cauchy channel_shuffle clone col2im complex constant_pad_nd
    copy copy_sparse_to_sparse count_nonzero cummax cummin dense_dim dequantize detach diag_embed diagonal_backward
    diagonal_scatter embedding embedding_renorm empty empty_like empty_permuted empty_quantized empty_strided equal
    exponential eye fft_fftfreq fft_rfftfreq fill flip fractional_max_pool2d fractional_max_pool2d_backward
    fractional_max_pool3d fractional_max_pool3d_backward from_file full full_like gather geometric hamming_window
    hann_window hash_tensor histogram im2col index index_copy index_fill index_put index_select int_repr
    is_coalesced is_pinned is_same_size is_set_to isin isinf isnan item kaiser_window kthvalue lift lift_fresh
    linspace log_normal logspace lu_unpack masked_fill masked_scatter masked_scatter_backward masked_select
    max_pool2d_backward max_pool2d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices
    max_pool3d_with_indices_backward max_unpool2d max_unpool3d median mkldnn_max_pool2d mkldnn_max_pool2d_backward
    mkldnn_max_pool3d mkldnn_max_pool3d_backward mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight mode
    multinomial nanmedian narrow_copy new_empty new_empty_strided new_full new_ones new_zeros nonzero
    nonzero_static normal normal_functional ones ones_like pixel_shuffle pixel_unshuffle poisson polar put
    q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qscheme
    quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_max_pool1d quantized_max_pool2d
    quantized_max_pool3d rand rand_like randint randint_like randn randn_like random randperm range record_stream
    reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
    replication_pad3d resize resize_as resize_as_sparse roll rot90 scalar_tensor scatter searchsorted
    select_backward select_scatter set slice_backward slice_scatter sort sparse_compressed_tensor sparse_coo_tensor
    sparse_dim sparse_mask sparse_resize sparse_resize_and_clear split_copy split_with_sizes_copy stack
    sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride take
    to_mkldnn to_padded_tensor topk tril tril_indices triu triu_indices unbind_copy unfold_backward uniform
    unique_consecutive unique_dim unique_dim_consecutive unsafe_split unsafe_split_with_sizes upsample_nearest1d
    upsample_nearest2d upsample_nearest3d where zero zeros zeros_like
    """
)

# Operators with arithmetic of their own but no matrix product: 1 FLOP a floating-point output element.
ARITHMETIC = _names(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d _adaptive_avg_pool3d_backward _add_relu
    _cdist_backward _cdist_forward _compute_linear_combination _conj_physical _ctc_loss _ctc_loss_backward
    _cudnn_ctc_loss _dirichlet_grad _embedding_bag _embedding_bag_backward _embedding_bag_dense_backward
    _embedding_bag_forward_only _embedding_bag_per_sample_weights_backward
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_channel_affine_backward
    _fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_tensor_affine_backward
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_dropout _fused_moving_avg_obs_fq_helper
    _fused_moving_avg_obs_fq_helper_functional _fused_rms_norm_backward _grid_sampler_2d_cpu_fallback
    _grid_sampler_2d_cpu_fallback_backward _index_put_impl _log_softmax_backward_data _logcumsumexp _masked_scale
    _masked_softmax_backward _nested_sum_backward _pdist_backward _pdist_forward _prelu_kernel
    _prelu_kernel_backward _segment_reduce_backward _softmax_backward_data _sparse_log_softmax
    _sparse_log_softmax_backward_data _sparse_softmax _sparse_softmax_backward_data _sparse_sum
    _sparse_sum_backward _standard_gamma_grad _thnn_fused_gru_cell _thnn_fused_gru_cell_backward
    _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _transform_bias_rescale_qkv _unsafe_index_put
    _unsafe_masked_index_put_accumulate _upsample_bicubic2d_aa _upsample_bicubic2d_aa_backward
    _upsample_bilinear2d_aa _upsample_bilinear2d_aa_backward _upsample_lanczos2d_aa _upsample_lanczos2d_aa_backward
    _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward _upsample_nearest_exact3d_backward
    _weight_norm_interface _weight_norm_interface_backward adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_avg_pool3d_backward add addr avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d
    avg_pool3d_backward batch_norm_backward batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt
    batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats
    binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits bincount
    cudnn_batch_norm_backward cudnn_grid_sampler cudnn_grid_sampler_backward cumprod cumsum dist div elu_backward
    embedding_dense_backward fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
    floor_divide gelu_backward glu glu_backward glu_backward_jvp glu_jvp grid_sampler_2d grid_sampler_2d_backward
    grid_sampler_3d grid_sampler_3d_backward hardshrink_backward hardsigmoid_backward hardswish hardswish_backward
    hardtanh_backward histc huber_loss huber_loss_backward index_add index_reduce leaky_relu_backward linalg_cross
    log_sigmoid_backward log_sigmoid_forward logcumsumexp miopen_batch_norm_backward miopen_ctc_loss
    mkldnn_adaptive_avg_pool2d mkldnn_adaptive_avg_pool2d_backward mse_loss mse_loss_backward mul multi_margin_loss
    multi_margin_loss_backward multilabel_margin_loss_backward multilabel_margin_loss_forward
    native_batch_norm_backward native_dropout_backward native_group_norm_backward native_layer_norm_backward
    native_norm nll_loss2d_backward nll_loss2d_forward nll_loss_backward nll_loss_forward reflection_pad1d_backward
    reflection_pad2d_backward reflection_pad3d_backward renorm replication_pad1d_backward
    replication_pad2d_backward replication_pad3d_backward rrelu_with_noise rrelu_with_noise_backward
    rrelu_with_noise_functional rsub scatter_add scatter_reduce segment_reduce smooth_l1_loss
    smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward softplus softplus_backward
    softshrink_backward sub threshold_backward trace upsample_bicubic2d upsample_bicubic2d_backward
    upsample_bilinear2d upsample_bilinear2d_backward upsample_linear1d upsample_linear1d_backward
    upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward upsample_trilinear3d
    upsample_trilinear3d_backward
    """
)

# Reductions that add or multiply: 1 FLOP a floating-point input element; a variance takes more, see elementwise.py.
REDUCTIONS = _names(
    """
    _foreach_norm _foreach_powsum _sparse_csr_prod _sparse_csr_sum linalg_vector_norm logsumexp mean nansum norm prod
    sum
    """
)

# Comparisons that torch tags as reductions or as elementwise.
COMPARISONS = _names("_aminmax all amax amin aminmax any argmax argmin max maximum min minimum sgn sign")

# Statistics, normalisation and dropout: elementwise.py says what each costs.
NORMALISING = _names(
    """
    _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional _log_softmax _masked_softmax
    _native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
    _nested_tensor_softmax_with_shape _safe_softmax _softmax cudnn_batch_norm log_softmax miopen_batch_norm
    native_batch_norm native_dropout native_group_norm native_layer_norm quantized_batch_norm softmax std std_mean var
    var_mean
    """
)

# By name, as torch's older releases have no "reduction".
_FREE_TAGS = frozenset(
    tag
    for name, tag in torch.Tag.__members__.items()
    if name in ("pointwise", "reduction", "view_copy", "inplace_view")
)


# Libraries beside aten whose operators of these beginnings or endings lay weights out for their kernels.
_PACKING = {
    "mkldnn": ("_reorder_", "_nbytes", "_get_mkldnn_", "data_ptr"),
    "mkl": ("_mkl_reorder_",),
}
_PACKED_ENDINGS = ("_prepack", "_prepack_fp16", "_prepack_legacy", "_prepack_fp16_legacy", "_rowwise_min_max")
_UNPACKED_ENDINGS = ("_unpack", "_unpack_fp16")
_PACKING_ENDINGS = dict.fromkeys(("quantized", "_quantized", "onednn", "sparse"), _PACKED_ENDINGS + _UNPACKED_ENDINGS)

# Operators of libraries beside aten that copy, index, cast, pack, or talk to other processes.
_COLLECTIVES = _names(
    """
    _allgather_base _reduce_scatter_base all_gather_into_tensor all_gather_into_tensor_coalesced
    all_gather_into_tensor_out all_reduce all_reduce_coalesced all_to_all_single allgather allgather_coalesced
    allgather_into_tensor_coalesced allreduce allreduce_coalesced alltoall alltoall_base barrier batch_p2p_ops broadcast
    check_for_nan gather irecv isend monitored_barrier recv recv_any_source reduce reduce_scatter reduce_scatter_tensor
    reduce_scatter_tensor_coalesced reduce_scatter_tensor_out scatter send shard_dim_alltoall wait_tensor
    """
)
_OTHER_MOVES = {
    "quantized": _names(
        """
        cat cat_out dropout embedding_4bit embedding_byte make_quantized_cell_params make_quantized_cell_params_dynamic
        make_quantized_cell_params_fp16 max_pool1d max_pool2d
        """
    ),
    "_quantized": _names("wrapped_fbgemm_pack_gemm_matrix_fp16"),
    "quantization": _names("_Bfloat16QuantizedToFloat _FloatToBfloat16Quantized"),
    "quantized_decomposed": _names(
        """
        _choose_qparams_per_token_asymmetric_impl choose_qparams choose_qparams_per_token
        choose_qparams_per_token_asymmetric choose_qparams_symmetric convert_element_type dequantize_per_channel
        dequantize_per_channel_group dequantize_per_tensor dequantize_per_token quantize_per_channel
        quantize_per_channel_group quantize_per_tensor quantize_per_token
        """
    ),
    **dict.fromkeys(("c10d", "_c10d_functional", "_c10d_functional_autograd", "_dtensor"), _COLLECTIVES),
}

# Their arithmetic without a matrix product: elementwise.py says what each costs.
_OTHER_ARITHMETIC = {
    "quantized": _names(
        """
        add add_out add_relu add_relu_out add_scalar add_scalar_out add_scalar_relu add_scalar_relu_out batch_norm
        batch_norm1d batch_norm1d_relu batch_norm2d batch_norm2d_relu batch_norm3d batch_norm3d_relu batch_norm_relu
        cat_relu cat_relu_out celu clamp elu embedding_bag_2bit_rowwise_offsets embedding_bag_4bit
        embedding_bag_4bit_rowwise_offsets embedding_bag_byte embedding_bag_byte_rowwise_offsets group_norm hardswish
        instance_norm layer_norm leaky_relu mul mul_out mul_relu mul_relu_out mul_scalar mul_scalar_out mul_scalar_relu
        mul_scalar_relu_out prelu relu6 sigmoid softmax threshold
        """
    ),
    "_quantized": _names("add"),
    "onednn": _names("qadd qadd_relu qbatch_norm2d qmul"),
    "quantized_decomposed": _names("fake_quant_per_channel"),
}


def base_name(op: Any) -> str:
    """Return an operator's name without the mark of its in-place variant: ``aten::add_`` is ``add``."""
    name = op._schema.name.rpartition("::")[2]
    return name.removesuffix("_") if not name.startswith("__") else name


def is_free(op: Any) -> bool:
    """Tell whether ``op`` (an ``OpOverload``) is known to multiply no matrices.

    Views, and what torch itself tags as elementwise, a reduction or a view's copy, are; so is what is listed here and
    the list-wise arithmetic of optimizers (``_foreach_*``, ``_fused_adam*`` and so on). Of others that is not known.
    """
    if op.is_view or not _FREE_TAGS.isdisjoint(op.tags):
        return True
    if op.namespace in ("prim", "profiler"):  # torch.optim marks its steps for the profiler
        return True
    name = base_name(op)
    if op.namespace != "aten":
        return _moves_elsewhere(op.namespace, name) or name in _OTHER_ARITHMETIC.get(op.namespace, ())
    if name in MOVES or name in ARITHMETIC or name in REDUCTIONS or name in COMPARISONS or name in NORMALISING:
        return True
    if name.startswith(("_foreach_", "_fused_ada", "_fused_sgd")):
        return name != "_foreach_mm"
    # An ``out=`` or in-place variant may lack the tag that the functional form has.
    packet = functional_packet(op)
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


def _moves_elsewhere(namespace: str, name: str) -> bool:
    if name.startswith(_PACKING.get(namespace, ())) or name.endswith(_PACKING_ENDINGS.get(namespace, ())):
        return True
    return name in _OTHER_MOVES.get(namespace, ())


def moves(op: Any) -> bool:
    """Tell whether ``op`` is known to copy, index, create, draw, cast, pack or describe, and to compute nothing."""
    name = base_name(op)
    return op.is_view or (name in MOVES if op.namespace == "aten" else _moves_elsewhere(op.namespace, name))


def is_composite(op: Any) -> bool:
    """Tell whether the kernel of ``op`` calls other operators, which can be counted one by one."""
    # torch writes the custom operators of its own layers in Python.
    key = "CompositeExplicitAutograd" if op.namespace == "torch_nn" else "CompositeImplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key)


def is_jagged(kind: type) -> bool:
    """Tell whether ``kind`` is torch's class of jagged tensors, without loading it: that takes a second."""
    return kind.__module__.startswith("torch.nested") and kind.__name__ == "NestedTensor"


def composite_key(op: Any, args: tuple[Any, ...]) -> DispatchKey:
    """Return the key of the kernel that takes the composite ``op`` apart: nested tensors may have one of their own."""
    nested = next((a for a in args if isinstance(a, Tensor) and a.is_nested and a.layout is torch.strided), None)
    if nested is not None:
        for name in (f"NestedTensor{nested.device.type.upper()}", "CompositeImplicitAutogradNestedTensor"):
            if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), name):
                return getattr(DispatchKey, name)
    explicit = op.namespace == "torch_nn"
    return DispatchKey.CompositeExplicitAutograd if explicit else DispatchKey.CompositeImplicitAutograd


def functional_packet(op: Any) -> Any:
    """Return the operator that ``op`` is an overload of, or the one that it does in place: ``addmm`` for ``addmm_``."""
    return getattr(getattr(torch.ops, op.namespace), base_name(op), op.overloadpacket)


def reduces(op: Any) -> bool:
    """Tell whether torch tags ``op`` as a reduction."""
    return any(tag.name == "reduction" for tag in op.tags)
