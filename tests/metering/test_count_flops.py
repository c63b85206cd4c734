"""``count_flops``: published sizes, kernels that torch's counter misses, and refusals that name what they refuse."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting_oracle import Gated
from budget_wrappers.errors import ConfigError, UncountableError
from budget_wrappers.metering import count_flops, register_flop_formula
from budget_wrappers.metering.formulas import matrix_product

MODES = pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])


class GaussianActor(nn.Module):
    """SAC's: a trunk and two heads, both of which run."""

    def __init__(self, observations: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(observations, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mean, self.log_std = nn.Linear(hidden, actions), nn.Linear(hidden, actions)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        return self.mean(features), self.log_std(features)


def torch_count(function: object, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


# ---- golden numbers: FLOPs = 2·(O·H + H·H + 2·H·A) -------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("observations", "actions", "flops"),
    [(2, 1, 8_704), (24, 6, 12_800)],
    ids=["MountainCarContinuous", "walker-stand"],
)
def test_sac_actor_costs_what_is_published_without_its_three_scalar_operations(
    mode: type, observations: int, actions: int, flops: int
) -> None:
    with mode():
        assert count_flops(GaussianActor(observations, actions, 64), torch.zeros(1, observations)) == flops


# ---- kernels --------------------------------------------------------------------------------------------------------


def test_bilinear_is_what_the_batched_products_inside_its_kernel_cost() -> None:
    layer, x, y = nn.Bilinear(3, 4, 5), torch.randn(2, 3), torch.randn(2, 4)
    with torch_profile(activities=[ProfilerActivity.CPU], with_flops=True) as trace:
        layer(x, y)
    inside = sum(event.flops or 0 for event in trace.events() if event.name == "aten::bmm")
    # 2·B·O·J·(I + 1) = 2·2·5·4·4 = 320
    assert count_flops(layer, x, y) == inside == 320


def test_gradients_of_bilinear_are_what_the_products_inside_their_kernels_cost() -> None:
    layer, x, y = nn.Bilinear(3, 4, 5), torch.randn(2, 3, requires_grad=True), torch.randn(2, 4, requires_grad=True)

    def update(x: Tensor, y: Tensor) -> None:
        layer(x, y).sum().backward()

    counted = count_flops(update, x, y)
    with torch_profile(activities=[ProfilerActivity.CPU], with_flops=True) as trace:
        update(x, y)
    assert counted == sum(event.flops or 0 for event in trace.events() if event.name in ("aten::bmm", "aten::mm"))


@MODES
@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (torch.mv, [(3, 4), (4,)], 24),
        (torch.dot, [(5,), (5,)], 10),
        (torch.vdot, [(5,), (5,)], 10),
        (torch.matmul, [(4,), (4, 3)], 24),
        (torch.inner, [(2, 4), (3, 4)], 48),
        (torch.addmm, [(2, 3), (2, 4), (4, 3)], 48),
        (lambda a, x, y: a.addmm_(x, y), [(2, 3), (2, 4), (4, 3)], 48),
        (lambda a, x, y: torch.mm(x, y, out=a), [(2, 3), (2, 4), (4, 3)], 48),
        (lambda a, x, w, b: F.linear(x, w, b, out=a), [(2, 3), (2, 4), (3, 4), (3,)], 48),
        (lambda a, x, y: a.addmv_(x, y), [(3,), (3, 4), (4,)], 24),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 240),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 240),
        (lambda *parts: torch.linalg.multi_dot(parts), [(2, 3), (3, 4), (4, 5)], 2 * (2 * 3 * 4 + 2 * 4 * 5)),
        (lambda a, b: torch.tensordot(a, b, 2), [(2, 3, 4), (3, 4, 5)], 2 * 2 * 12 * 5),
        # |a − b|² as one product with two columns more
        (torch.cdist, [(30, 4), (26, 4)], 2 * 30 * 26 * 6),
        (lambda theta: F.affine_grid(theta, [2, 1, 3, 5], False), [(2, 2, 3)], 2 * 2 * 15 * 3 * 2),
    ],
)
def test_products_of_matrices_and_vectors(mode: type, function: object, shapes: list[tuple], flops: int) -> None:
    with mode():
        assert count_flops(function, *map(torch.randn, shapes)) == flops


@MODES
def test_one_layer_of_a_fused_lstm_costs_eight_times_hidden_times_input_and_hidden(mode: type) -> None:
    with mode():  # T·B·2·4H·(I + H) = 3·2·2·28·(5 + 7)
        assert count_flops(nn.LSTM(5, 7), torch.zeros(3, 2, 5)) == 3 * 2 * 2 * 28 * 12 == 4032


def test_a_packed_sequence_costs_its_rows_and_no_padding() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 5), torch.randn(2, 5)])
    assert count_flops(nn.LSTM(5, 7), packed) == (3 + 2) * 2 * 28 * 12


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
@MODES
def test_onednn_kernels_cost_what_the_layers_do(mode: type) -> None:
    linear = torch.ops.mkldnn._linear_pointwise
    x, weight, bias = torch.randn(6, 4), torch.randn(3, 4), torch.randn(3)
    with mode():
        assert count_flops(lambda x: linear(x, weight, bias, "relu", [], ""), x) == 2 * 6 * 4 * 3
        # 72 of the product, 18 of the bias, 18 of the activation
        assert count_flops(lambda x: linear(x, weight, bias, "relu", [], ""), x, convention="all") == 144 + 18 + 18

        def packing(x: Tensor) -> Tensor:
            return linear(x, torch.ops.mkldnn._reorder_linear_weight(weight, 6), bias, "none", [], "")

        assert count_flops(packing, x) == 144


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quantized_linear_layer_costs_what_it_did_in_float() -> None:
    if not torch.backends.quantized.supported_engines or torch.backends.quantized.engine == "none":
        pytest.skip("this build of torch has no quantized engine")
    packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 0, torch.qint8), None)
    assert count_flops(lambda x: torch.ops.quantized.linear_dynamic(x, packed), torch.randn(2, 4)) == 2 * 2 * 4 * 3


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_matrix_costs_two_flops_an_entry_and_column(layout: torch.layout) -> None:
    sparse = torch.eye(4).to_sparse(layout=layout)
    assert count_flops(lambda x: sparse @ x, torch.randn(4, 3)) == 2 * 4 * 3


def test_a_transposed_convolution_costs_by_its_input() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), torch.randn(2, 4, 5, 5)
    # 2 rows · 4 channels · 25 pixels, each times 3 output channels of its group and 9 taps
    assert count_flops(layer, x) == torch_count(layer, x) == 2 * 2 * 4 * 25 * 3 * 9


def test_the_weight_gradient_of_a_grouped_convolution_repeats_the_forward_once() -> None:
    layer, x = nn.Conv2d(4, 4, 3, groups=4), torch.randn(1, 4, 5, 5)
    forward = 2 * 4 * 9 * 9  # 4 channels · 9 pixels · 9 taps

    def update(x: Tensor) -> None:
        layer(x).sum().backward()

    assert count_flops(update, x) == 2 * forward
    assert torch_count(update, x) == forward + 4 * forward  # torch multiplies by the groups


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 3), nn.Conv1d(6, 3, 2), nn.ConvTranspose1d(6, 3, 2), nn.GRU(3, 4)],
    ids=["linear", "conv", "conv_transpose", "gru"],
)
def test_an_update_costs_what_torch_counts_forward_and_backward(layer: nn.Module) -> None:
    x = torch.randn(2, 6, 6) if not isinstance(layer, nn.GRU) else torch.randn(4, 2, 3)

    def update(x: Tensor) -> None:
        out = layer(x)
        (out[0] if isinstance(out, tuple) else out).square().sum().backward()

    assert count_flops(update, x.requires_grad_()) == torch_count(update, x)


def test_the_backward_pass_of_a_fused_lstm_costs_twice_its_forward() -> None:
    layer, x = nn.LSTM(5, 7), torch.randn(3, 2, 5, requires_grad=True)
    assert count_flops(lambda x: layer(x)[0].sum().backward(), x) == 3 * count_flops(layer, x)


def test_the_backward_pass_of_fused_attention_is_five_products_of_the_forwards_size() -> None:
    q = torch.randn(2, 3, 4, 5, requires_grad=True)  # forward: two products of 2·B·h·T·S·d
    one = 2 * 2 * 3 * 4 * 4 * 5
    assert count_flops(lambda q: F.scaled_dot_product_attention(q, q, q).sum().backward(), q) == 7 * one


def test_a_grouped_query_counts_every_query_head() -> None:
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8)
    flops = count_flops(lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), q, k)
    assert flops == 2 * 4 * 3 * 5 * 8 * 2


# ---- branches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "short_rows"), [(1e6, 5), (-1e6, 0)], ids=["all leave", "none leaves"])
def test_a_gated_module_is_counted_by_the_branch_taken(shift: float, short_rows: int) -> None:
    gated, x = Gated(3, 8, 2, shift), torch.randn(5, 3)
    trunk, short, long = 5 * (3 * 8 + 8), short_rows * 8 * 2, (5 - short_rows) * (8 * 8 + 8 * 2)
    assert count_flops(gated, x) == torch_count(gated, x) == 2 * (trunk + short + long)


@MODES
def test_torch_cond_is_counted_by_the_branch_taken(mode: type) -> None:
    def either(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x + 1, (x,))

    with mode():
        assert count_flops(either, torch.ones(3, 3)) == 54
        assert count_flops(either, -torch.ones(3, 3)) == 0


# ---- the other convention -------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("layer", "shape", "flops"),
    [
        (nn.Linear(4, 3), (2, 4), 48 + 6),  # products + bias
        (nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh()), (2, 4), 48 + 6),  # products + activation
        (nn.Conv1d(1, 2, 3), (1, 1, 5), 36 + 6),
        (nn.LayerNorm(5), (4, 5), 20 * 7),  # statistics 3, normalise 2, scale and shift 2
        (nn.BatchNorm1d(5).eval(), (4, 5), 20 * 4),  # given statistics
        (nn.BatchNorm1d(5), (4, 5), 20 * 7),
        (nn.GroupNorm(2, 4, affine=False), (4, 4), 16 * 5),
        (nn.Softmax(-1), (4, 5), 20 * 4),
        (nn.Dropout(), (4, 5), 20 * 2),
        (nn.MaxPool1d(2), (1, 1, 6), 0),
        (nn.Flatten(), (4, 5), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_all_adds_biases_activations_and_normalisation(mode: type, layer: nn.Module, shape: tuple, flops: int) -> None:
    with mode():
        assert count_flops(layer, torch.randn(shape), convention="all") == flops


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 4, 2),
        nn.GRU(8, 4),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
        nn.Sequential(nn.RMSNorm(8), nn.GELU(), nn.Linear(8, 8), nn.Dropout(0.1), nn.LogSoftmax(-1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_all_is_one_answer_in_three_modes_and_above_matmul(layer: nn.Module) -> None:
    x, counts = torch.randn(3, 2, 8), set()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            counts.add(count_flops(layer, x, convention="all"))
    assert len(counts) == 1
    assert counts.pop() > count_flops(layer, x)


@pytest.mark.parametrize(("kind", "flops"), [("nearest", 0), ("bilinear", 768), ("bicubic", 768)])
def test_interpolation_costs_the_same_in_three_modes(kind: str, flops: int) -> None:
    """One FLOP an output element, 3·16·16; the nearest one is only moved."""
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            assert (
                count_flops(nn.Upsample(scale_factor=2, mode=kind), torch.zeros(1, 3, 8, 8), convention="all") == flops
            )


def test_a_fused_lstm_costs_in_all_what_its_parts_do() -> None:
    fused, parts = nn.LSTM(5, 7, 2, bidirectional=True), nn.LSTM(5, 7, 2, bidirectional=True).double()
    x = torch.randn(3, 2, 5)
    assert count_flops(fused, x, convention="all") == count_flops(parts, x.double(), convention="all")


# ---- what cannot be counted -----------------------------------------------------------------------------------------


@torch.library.custom_op("budget_wrappers_tests::opaque", mutates_args=())
def opaque(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@torch.library.custom_op("budget_wrappers_tests::taught", mutates_args=())
def taught(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@MODES
def test_an_opaque_operator_is_refused_by_name_with_the_remedy(mode: type) -> None:
    with mode(), pytest.raises(UncountableError, match=r"budget_wrappers_tests\.opaque.*register_flop_formula"):
        count_flops(opaque, torch.randn(2, 3), torch.randn(3, 4))


def test_a_module_with_an_opaque_operator_is_named_too() -> None:
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return opaque(x, x)

    with pytest.raises(UncountableError, match=r"Hidden: .*opaque"):
        count_flops(Hidden(), torch.randn(2, 2))


def test_a_refusal_that_the_model_catches_is_raised_nevertheless() -> None:
    def careless(x: Tensor) -> Tensor:
        try:
            return opaque(x, x)
        except TypeError:
            return x

    with pytest.raises(UncountableError, match="opaque"):
        count_flops(careless, torch.randn(2, 2))


def test_a_registered_formula_counts_its_operator() -> None:
    register_flop_formula(taught, lambda x, w, out_shape, **_: matrix_product(*x, w[1]))
    assert count_flops(taught, torch.randn(2, 3), torch.randn(3, 4)) == 48


@pytest.mark.parametrize("op", [torch.relu, "aten.mm", torch.ops.aten.mm, torch.ops.aten.addmm_.default])
def test_only_operators_without_a_built_in_formula_can_be_registered(op: object) -> None:
    with pytest.raises(ConfigError, match=r"operator|built-in"):
        register_flop_formula(op, lambda *shapes, **_: 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential], ids=["itself", "inside"])
def test_a_scripted_module_is_refused_by_name(wrap: type) -> None:
    scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(UncountableError, match=r"Linear is scripted"):
        count_flops(wrap(scripted), torch.zeros(1, 2))


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'macs'; expected one of 'matmul', 'all'"):
        count_flops(nn.Linear(2, 2), torch.zeros(1, 2), convention="macs")


# ---- compiled -------------------------------------------------------------------------------------------------------


def test_a_compiled_module_is_counted_through_its_original() -> None:
    gated, x = Gated(3, 8, 2, 1e6), torch.randn(5, 3)
    assert count_flops(torch.compile(gated, backend="eager"), x) == count_flops(gated, x)


def test_a_compiled_module_inside_another_is_run_as_python() -> None:
    inner = torch.compile(nn.Linear(3, 4), backend="eager")
    assert count_flops(nn.Sequential(inner, nn.ReLU()), torch.randn(5, 3)) == 2 * 5 * 3 * 4


def test_a_compiled_function_is_counted_through_its_original() -> None:
    assert count_flops(torch.compile(torch.mm, backend="eager"), torch.randn(2, 3), torch.randn(3, 4)) == 48


# ---- company --------------------------------------------------------------------------------------------------------


def test_somebody_elses_counter_does_not_see_the_run() -> None:
    with FlopCounterMode(display=False) as outer:
        count_flops(nn.Linear(3, 4), torch.zeros(1, 3))
    assert outer.get_total_flops() == 0


def test_keyword_arguments_are_passed_on() -> None:
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)
    kwargs = {"query": x, "key": x, "value": x, "need_weights": False}
    assert count_flops(layer, example_kwargs=kwargs) == count_flops(layer, x, x, x)


def test_attention_is_counted_in_full_whatever_is_padding() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x, padding = torch.randn(2, 3, 8), torch.tensor([[False, False, True], [False, False, False]])
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            padded = count_flops(encoder, x, example_kwargs={"src_key_padding_mask": padding})
            assert padded == count_flops(encoder, x)
