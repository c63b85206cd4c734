"""Layers after torch's own quantisation cost what they did before it: 2 operations a multiply-accumulate."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn import quantized as quantised_layers
from torch.nn import functional as F

from budget_wrappers.errors import UncountableError
from budget_wrappers.metering import ComputeMeter, count_flops

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torch announces the successor of each function that is called here
    pytest.mark.skipif("x86" not in torch.backends.quantized.supported_engines, reason="no quantised kernels"),
]
CONVENTIONS = pytest.mark.parametrize("convention", ["matmul", "all"])


@pytest.fixture
def engine() -> object:
    """Let a test choose the backend of quantised kernels."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "x86"
    yield lambda name: setattr(torch.backends.quantized, "engine", name)
    torch.backends.quantized.engine = before


def packed_sequence() -> object:
    return nn.utils.rnn.pack_sequence([torch.ones(3, 4), torch.ones(2, 4)])


DYNAMIC: dict[str, tuple[nn.Module, Callable[[], object], int]] = {
    "linear": (nn.Linear(4, 3), lambda: torch.ones(2, 4), 2 * 2 * 4 * 3),
    "linear without bias": (nn.Linear(4, 3, bias=False), lambda: torch.ones(2, 5, 4), 2 * 10 * 4 * 3),
    # T·B·2·4H·(I + H), two directions; the second layer's input is both directions' output
    "lstm": (nn.LSTM(4, 3, 2, bidirectional=True), lambda: torch.ones(5, 2, 4), 10 * 2 * 12 * 2 * (4 + 3 + 6 + 3)),
    "lstm, packed": (nn.LSTM(4, 3), packed_sequence, 5 * 2 * 12 * 7),
    "gru": (nn.GRU(4, 3, 2), lambda: torch.ones(5, 2, 4), 10 * 2 * 9 * (4 + 3 + 3 + 3)),
    "gru, packed": (nn.GRU(4, 3), packed_sequence, 5 * 2 * 9 * 7),
    "lstm cell": (nn.LSTMCell(4, 3), lambda: torch.ones(2, 4), 2 * 2 * 12 * 7),
    "gru cell": (nn.GRUCell(4, 3), lambda: torch.ones(2, 4), 2 * 2 * 9 * 7),
    "rnn cell": (nn.RNNCell(4, 3), lambda: torch.ones(2, 4), 2 * 2 * 3 * 7),
    "rnn cell with relu": (nn.RNNCell(4, 3, nonlinearity="relu"), lambda: torch.ones(2, 4), 2 * 2 * 3 * 7),
}
KINDS = {nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=["int8", "half"])
@pytest.mark.parametrize("name", DYNAMIC)
def test_a_dynamically_quantised_layer_costs_what_it_did_in_float(name: str, dtype: torch.dtype) -> None:
    layer, example, flops = DYNAMIC[name]
    module = nn.Sequential(layer)
    quantised = quantization.quantize_dynamic(module, KINDS, dtype=dtype)
    assert "quantized" in type(quantised[0]).__module__
    assert count_flops(quantised, example()) == count_flops(module, example()) == flops
    assert count_flops(quantised, example(), convention="all") == count_flops(module, example(), convention="all")


class Convolutional(nn.Module):
    """Every kind of kernel that static quantisation fuses."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = quantization.QuantStub(), quantization.DeQuantStub()
        self.first, self.norm, self.relu = nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU()
        self.second = nn.Conv2d(4, 4, 1, groups=2)
        self.flat, self.linear, self.elu = nn.Flatten(), nn.Linear(64, 5), nn.ELU()
        self.last, self.last_relu = nn.Linear(5, 3), nn.ReLU()
        self.layer_norm, self.hardswish = nn.LayerNorm(3), nn.Hardswish()
        self.sum = quantised_layers.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.relu(self.norm(self.first(self.enter(x)))))
        x = self.elu(self.linear(self.flat(x)))
        x = self.sum.mul(self.sum.add(x, x), x)
        return self.leave(self.hardswish(self.layer_norm(self.last_relu(self.last(x)))))


def convolutional() -> nn.Module:
    pairs = [["first", "norm", "relu"], ["last", "last_relu"]]
    return quantization.fuse_modules(Convolutional().eval(), pairs)


def converted(module: nn.Module, x: Tensor) -> nn.Module:
    module = copy.deepcopy(module)
    module.qconfig = quantization.default_qconfig
    observed = quantization.prepare(module)
    observed(x)
    return quantization.convert(observed)


@pytest.mark.usefixtures("engine")
def test_a_statically_quantised_network_costs_what_it_did_in_float() -> None:
    module, x = convolutional(), torch.ones(2, 3, 5, 5)
    quantised = converted(module, x)
    for convention in ("matmul", "all"):
        assert count_flops(quantised, x, convention=convention) == count_flops(module, x, convention=convention) > 0


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(4), (2, 4, 3, 3)),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3)),
        (nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3)),
        (nn.LeakyReLU(), (2, 4)),
        (nn.ReLU6(), (2, 4)),
        (nn.Sigmoid(), (2, 4)),
        (nn.Dropout(), (2, 4)),
        (nn.MaxPool2d(2), (2, 4, 4, 4)),
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Conv3d(4, 6, 2), (2, 4, 3, 3, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_quantised_layer_costs_in_all_what_it_did_in_float(layer: nn.Module, shape: tuple) -> None:
    module = nn.Sequential(quantization.QuantStub(), layer, quantization.DeQuantStub()).eval()
    x = torch.ones(shape)
    quantised = converted(module, x)
    for convention in ("matmul", "all"):
        assert count_flops(quantised, x, convention=convention) == count_flops(module, x, convention=convention)


@CONVENTIONS
@pytest.mark.parametrize("engine_name", ["x86", "qnnpack"])
@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"])
def test_a_dynamic_convolution_costs_what_it_did_in_float(
    kind: str, engine_name: str, convention: str, engine: Callable
) -> None:
    engine(engine_name)
    x = torch.ones(2, 4, *[7] * int(kind[-2]))
    plain, packed = (getattr(space, kind)(4, 6, 3, stride=2) for space in (nn, quantised_layers.dynamic))
    assert count_flops(packed, x, convention=convention) == count_flops(plain, x, convention=convention) > 0


@pytest.mark.skipif("qnnpack" not in torch.backends.quantized.supported_engines, reason="no QNNPACK")
def test_a_weight_that_its_backend_cannot_show_is_refused_with_the_remedy(engine: Callable) -> None:
    engine("qnnpack")
    layer = quantised_layers.dynamic.Conv3d(4, 6, 3)
    with pytest.raises(UncountableError, match=r"cannot be unpacked.*engine is another"):
        count_flops(layer, torch.ones(1, 4, 5, 5, 5))


@pytest.mark.usefixtures("engine")
def test_training_that_is_aware_of_quantisation_costs_the_products_of_training() -> None:
    module, x = Convolutional(), torch.ones(2, 3, 5, 5)
    aware = copy.deepcopy(module)
    aware.qconfig = quantization.get_default_qat_qconfig("x86")
    aware = quantization.prepare_qat(aware.train())

    def update(network: nn.Module) -> Callable[[Tensor], None]:
        return lambda x: network(x).square().sum().backward()

    assert count_flops(update(aware), x) == count_flops(update(module), x)
    assert count_flops(update(aware), x, convention="all") > count_flops(update(module), x, convention="all")


@pytest.mark.usefixtures("engine")
def test_a_watched_quantised_network_charges_its_products() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    quantised, meter = quantization.quantize_dynamic(module, {nn.Linear}), ComputeMeter()
    meter.watch(quantised)
    with torch.no_grad():
        quantised(torch.ones(3, 4))
    assert meter.executed == 3 * 2 * (4 * 8 + 8 * 2)


# ---- single kernels -------------------------------------------------------------------------------------------------


def int4() -> Tensor:
    weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.zeros(32, 64, dtype=torch.int32), 1)
    scales = torch.ones(2, 32, 2, dtype=torch.bfloat16)
    x = torch.ones(4, 64, dtype=torch.bfloat16)
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, 32, scales)


def dynamic_int4() -> Tensor:
    weight, scales = torch.zeros(8, 16, dtype=torch.uint8), torch.ones(8, 1)
    packed = torch.ops.aten._dyn_quant_pack_4bit_weight(weight, scales, None, 32, 32, 8)
    return torch.ops.aten._dyn_quant_matmul_4bit(torch.ones(3, 32), packed, 32, 32, 8)


def int8() -> Tensor:
    weight, scales = torch.zeros(8, 16, dtype=torch.int8), torch.ones(8, dtype=torch.bfloat16)
    return torch._weight_int8pack_mm(torch.ones(4, 16, dtype=torch.bfloat16), weight, scales)


def integers() -> Tensor:
    return torch._int_mm(torch.zeros(32, 16, dtype=torch.int8), torch.zeros(16, 24, dtype=torch.int8))


def quantised_matmul() -> Tensor:
    a, b = (torch.quantize_per_tensor(torch.ones(s), 0.1, 0, torch.qint8) for s in ((2, 3, 4), (2, 4, 5)))
    return torch.ops.quantized.matmul(a, b, 0.1, 0)


def grouped() -> Tensor:
    a, b = (torch.ones(s, dtype=torch.bfloat16) for s in ((16, 8), (2, 8, 24)))
    return torch._grouped_mm(a, b, offs=torch.tensor([8, 16], dtype=torch.int32))


def block_sparse() -> Tensor:
    torch.backends.quantized.engine = "qnnpack"
    weight = torch.ones(8, 8)
    weight[:, 4:] = 0  # of the blocks of (1, 4), every second is stored
    packed = torch.ops.sparse.qlinear_prepack(torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8), None, 1, 4)
    return torch.ops.sparse.qlinear_dynamic(torch.ones(2, 8), packed)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("kernel", "flops"),
    [
        (int4, 2 * 4 * 64 * 32),
        (dynamic_int4, 2 * 3 * 32 * 8),
        (int8, 2 * 4 * 16 * 8),
        (integers, 2 * 32 * 16 * 24),
        (quantised_matmul, 2 * 2 * 3 * 4 * 5),
        (grouped, 2 * 16 * 8 * 24),
        (block_sparse, 2 * 2 * 8 * 4),
    ],
)
def test_a_kernel_of_packed_or_grouped_weights_costs_two_a_multiply_accumulate(kernel: Callable, flops: int) -> None:
    for convention in ("matmul", "all"):
        assert count_flops(kernel, convention=convention) == flops


# ---- sparse and nested ----------------------------------------------------------------------------------------------


def entries() -> Tensor:
    """Three entries, in columns 0, 0 and 2."""
    return torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_product_of_sparse_matrices_costs_the_entries_that_meet(layout: torch.layout) -> None:
    a, b = entries().to_sparse(layout=layout), entries().to_sparse(layout=layout)
    # two entries of column 0 meet one of row 0; one of column 2 meets one of row 2
    assert count_flops(lambda: a @ b) == 2 * (2 * 1 + 1 * 1)


def test_a_matrix_of_dense_blocks_costs_every_entry_of_its_blocks() -> None:
    blocks = torch.eye(4).to_sparse_bsr((2, 2))  # two blocks of four entries
    assert count_flops(lambda x: blocks @ x, torch.ones(4, 3)) == 2 * 8 * 3


def test_a_sampled_product_costs_the_entries_that_are_kept() -> None:
    pattern = entries().to_sparse_csr()
    assert count_flops(lambda x, y: torch.sparse.sampled_addmm(pattern, x, y), torch.ones(3, 5), torch.ones(5, 3)) == 30


def test_a_reduction_over_a_sparse_matrix_costs_its_entries_and_their_gradient_as_much() -> None:
    a, x = entries().to_sparse_csr(), torch.ones(3, 4)
    assert count_flops(lambda x: torch.sparse.mm(a, x, "mean"), x) == 2 * 3 * 4


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=["strided", "jagged"])
def test_a_linear_layer_over_a_nested_batch_costs_its_tokens_and_no_padding(mode: type, layout: torch.layout) -> None:
    weight = torch.ones(3, 4)
    with mode():
        nested = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=layout)
        assert count_flops(lambda: F.linear(nested, weight)) == 2 * 5 * 4 * 3
        assert count_flops(lambda: F.relu(F.linear(nested, weight)), convention="all") == 2 * 5 * 4 * 3 + 5 * 3


def test_the_gradient_of_a_linear_layer_over_a_nested_batch_repeats_its_products_twice() -> None:
    weight = torch.ones(3, 4, requires_grad=True)

    def update() -> None:
        nested = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], requires_grad=True)
        torch.nested.to_padded_tensor(F.linear(nested, weight), 0.0).sum().backward()

    assert count_flops(update) == 3 * 2 * 5 * 4 * 3
