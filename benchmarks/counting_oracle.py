"""Counting is right: random modules, three gradient modes, against torch's own counter and formulas by hand.

Each case is built from a seed with its hand formula beside it, written from the sizes that were drawn and from nothing
of the library. A case passes when ``count_flops`` gives one answer in plain mode, ``no_grad`` and ``inference_mode``;
when that answer is the hand formula's and, where ``torch.utils.flop_counter`` sees every product, torch's; when a meter
that watches the module is charged the same; and when the module, its inputs and the random generator are as before.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.card import RESULTS, store
from budget_wrappers.errors import UncountableError
from budget_wrappers.metering import ComputeMeter, count_flops

MODES = {"plain": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@dataclass(frozen=True)
class Case:
    """One random module.

    Attributes:
        kind: its family.
        module: built and in the training or evaluation mode that was drawn.
        inputs: arguments of one call.
        by_hand: FLOPs, 2 a multiply-accumulate.
        torch_sees_all: whether torch's counter has a formula for every product in it.
    """

    kind: str
    module: nn.Module
    inputs: tuple[Any, ...]
    by_hand: int
    torch_sees_all: bool = True


class Function(nn.Module):
    """A function as a module, so that a meter can watch it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Keep the function."""
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Tensor:
        """Call it."""
        return self.function(*args)


class Gated(nn.Module):
    """A trunk, a gate that reads its features, and two branches; the second holds a product that no layer does."""

    def __init__(self, size: int, hidden: int, out: int, shift: float) -> None:
        """Draw the weights; ``shift`` moves the gate towards one branch."""
        super().__init__()
        self.trunk, self.gate = nn.Linear(size, hidden), nn.Linear(hidden, 1)
        self.short, self.long = nn.Linear(hidden, out), nn.Linear(hidden, out)
        self.mixing = nn.Parameter(torch.randn(hidden, hidden))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Leave each row by its gate; a branch runs on the rows that take it."""
        features = torch.tanh(self.trunk(x))
        leaves = self.gate(features).squeeze(-1) + self.shift > 0
        out = features.new_zeros(len(x), self.short.out_features)
        if leaves.any():
            out[leaves] = self.short(features[leaves])
        if not leaves.all():
            out[~leaves] = self.long(torch.relu(features[~leaves] @ self.mixing))
        return out

    def leaving(self, x: Tensor) -> int:
        """Return how many rows take the short branch."""
        return int((self.gate(torch.tanh(self.trunk(x))).squeeze(-1) + self.shift > 0).sum())


def _mlp(draw: random.Random, rows: int) -> Case:
    sizes = [draw.randint(1, 24) for _ in range(draw.randint(2, 5))]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=draw.random() < 0.7), draw.choice([nn.ReLU, nn.Tanh, nn.SiLU])()]
    products = sum(a * b for a, b in pairwise(sizes))
    return Case("mlp", nn.Sequential(*layers), (torch.randn(rows, sizes[0]),), 2 * rows * products)


def _convolution(draw: random.Random, rows: int) -> Case:
    dims, groups = draw.choice([1, 2]), draw.choice([1, 1, 2])
    into, out = groups * draw.randint(1, 4), groups * draw.randint(1, 4)
    kernel, size = draw.randint(1, 3), draw.randint(5, 9)
    stride, padding = draw.randint(1, 2), draw.randint(0, 1)
    layer = (nn.Conv1d, nn.Conv2d)[dims - 1](into, out, kernel, stride, padding, groups=groups)
    spatial = (size + 2 * padding - kernel) // stride + 1
    flops = 2 * rows * out * spatial**dims * (into // groups) * kernel**dims
    return Case(f"conv{dims}d", layer, (torch.randn(rows, into, *[size] * dims),), flops)


def _transposed_convolution(draw: random.Random, rows: int) -> Case:
    dims, into, out, kernel, size = draw.choice([1, 2]), draw.randint(1, 4), draw.randint(1, 4), draw.randint(1, 3), 5
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1](into, out, kernel, stride=draw.randint(1, 2))
    flops = 2 * rows * into * size**dims * out * kernel**dims
    return Case("conv_transpose", layer, (torch.randn(rows, into, *[size] * dims),), flops)


def _batched_product(draw: random.Random, rows: int) -> Case:
    m, k, n = (draw.randint(1, 9) for _ in range(3))
    function = draw.choice([torch.bmm, torch.matmul, lambda a, b: torch.einsum("bij,bjk->bik", a, b)])
    return Case("bmm", Function(function), (torch.randn(rows, m, k), torch.randn(rows, k, n)), 2 * rows * m * k * n)


def _recurrent(kind: type[nn.RNNBase], gates: int, draw: random.Random, rows: int) -> Case:
    size, hidden, layers, steps = draw.randint(1, 8), draw.randint(1, 8), draw.randint(1, 2), draw.randint(1, 5)
    both, double = draw.random() < 0.5, draw.random() < 0.3
    module = kind(size, hidden, layers, bidirectional=both, batch_first=draw.random() < 0.5)
    shape = (rows, steps, size) if module.batch_first else (steps, rows, size)
    directions, flops = 1 + both, 0
    for layer in range(layers):
        width = size if layer == 0 else directions * hidden
        flops += directions * 2 * rows * steps * gates * hidden * (width + hidden)
    x = torch.randn(shape)
    # A float32 LSTM on the CPU is one oneDNN kernel, of which torch's counter knows nothing.
    seen = kind is not nn.LSTM or double
    module, x = (module.double(), x.double()) if double else (module, x)
    return Case(kind.__name__.lower(), module, (x,), flops, seen)


def _lstm(draw: random.Random, rows: int) -> Case:
    return _recurrent(nn.LSTM, 4, draw, rows)


def _gru(draw: random.Random, rows: int) -> Case:
    return _recurrent(nn.GRU, 3, draw, rows)


def _rnn(draw: random.Random, rows: int) -> Case:
    return _recurrent(nn.RNN, 1, draw, rows)


def _attention(draw: random.Random, rows: int) -> Case:
    heads, tokens = draw.randint(1, 3), draw.randint(1, 6)
    embed = heads * draw.randint(1, 4) * 2
    module = nn.MultiheadAttention(embed, heads, batch_first=True).train(draw.random() < 0.5)
    x = torch.randn(rows, tokens, embed)
    # Four projections of E², scores and mixture of T²·E each. With gradients on, this layer takes no fused kernel.
    flops = 2 * rows * tokens * (4 * embed**2 + 2 * tokens * embed)
    return Case("multihead_attention", module, (x, x, x), flops)


def _encoder_layer(draw: random.Random, rows: int) -> Case:
    heads, tokens, feedforward = draw.randint(1, 2), draw.randint(1, 6), draw.randint(1, 12)
    embed = heads * draw.randint(1, 4) * 2
    module = nn.TransformerEncoderLayer(embed, heads, feedforward, batch_first=True).train(draw.random() < 0.5)
    flops = 2 * rows * tokens * (4 * embed**2 + 2 * tokens * embed + 2 * embed * feedforward)
    # In evaluation the scores come from a fused CPU kernel that torch's counter does not know; dropout has another.
    return Case("encoder_layer", module, (torch.randn(rows, tokens, embed),), flops, torch_sees_all=module.training)


def _dot_product_attention(draw: random.Random, rows: int) -> Case:
    heads, queries, keys, size = (draw.randint(1, 5) for _ in range(4))
    q, k, v = (torch.randn(rows, heads, tokens, size) for tokens in (queries, keys, keys))
    flops = 2 * rows * heads * queries * keys * 2 * size
    module = Function(F.scaled_dot_product_attention)
    return Case("dot_product_attention", module, (q, k, v), flops, torch_sees_all=False)


def _normalised(draw: random.Random, rows: int) -> Case:
    size, out = 2 * draw.randint(2, 8), draw.randint(1, 8)
    norm = draw.choice([nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm, lambda n: nn.GroupNorm(2, n)])(size)
    module = nn.Sequential(norm, nn.Linear(size, out), nn.Dropout(0.1)).train(draw.random() < 0.5 and rows > 1)
    return Case("norm", module, (torch.randn(rows, size),), 2 * rows * size * out)


def _embedded(draw: random.Random, rows: int) -> Case:
    words, size, out, tokens = draw.randint(2, 9), draw.randint(1, 8), draw.randint(1, 8), draw.randint(1, 4)
    embed = draw.choice([nn.Embedding, nn.EmbeddingBag])(words, size)
    vectors = rows * tokens if isinstance(embed, nn.Embedding) else rows
    module = nn.Sequential(embed, nn.Linear(size, out))
    return Case("embedding", module, (torch.randint(words, (rows, tokens)),), 2 * vectors * size * out)


def _bilinear(draw: random.Random, rows: int) -> Case:
    left, right, out = (draw.randint(2, 7) for _ in range(3))
    # xᵀ W for each output, then its product with y: the two batched products inside of the kernel.
    flops = 2 * rows * out * right * (left + 1)
    inputs = (torch.randn(rows, left), torch.randn(rows, right))
    return Case("bilinear", nn.Bilinear(left, right, out), inputs, flops, torch_sees_all=False)


def _matrix_vector(draw: random.Random, rows: int) -> Case:
    size = draw.randint(1, 9)
    matrix, vector = torch.randn(rows, size), torch.randn(size)
    if draw.random() < 0.5:
        return Case("matrix_vector", Function(torch.matmul), (matrix, vector), 2 * rows * size, torch_sees_all=False)
    addmv = Function(lambda a, m, v: torch.addmv(a, m, v))
    return Case("matrix_vector", addmv, (torch.randn(rows), matrix, vector), 2 * rows * size, torch_sees_all=False)


def _gated(draw: random.Random, rows: int) -> Case:
    size, hidden, out = (draw.randint(1, 9) for _ in range(3))
    module = Gated(size, hidden, out, draw.uniform(-1, 1))
    x = torch.randn(rows, size)
    with torch.no_grad():
        short = module.leaving(x)
    flops = 2 * rows * (size * hidden + hidden) + 2 * short * hidden * out
    return Case("gated", module, (x,), flops + 2 * (rows - short) * (hidden * hidden + hidden * out))


BUILDERS: tuple[Callable[[random.Random, int], Case], ...] = (
    _mlp,
    _convolution,
    _transposed_convolution,
    _batched_product,
    _lstm,
    _gru,
    _rnn,
    _attention,
    _encoder_layer,
    _dot_product_attention,
    _normalised,
    _embedded,
    _bilinear,
    _matrix_vector,
    _gated,
)


def build(seed: int) -> Case:
    """Return the case of a seed: families take turns, batches of 1 and more too."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    rows = 1 if (seed // len(BUILDERS)) % 2 == 0 else draw.randint(2, 6)
    return BUILDERS[seed % len(BUILDERS)](draw, rows)


def failures(case: Case) -> list[str]:
    """Return what is wrong with the counting of a case, in words; nothing when all is right."""
    wrong = []
    state = {name: value.clone() for name, value in case.module.state_dict().items()}
    inputs, random_state = [x.clone() for x in case.inputs], torch.get_rng_state()
    counted = {}
    for mode, context in MODES.items():
        with context():
            counted[mode] = count_flops(case.module, *case.inputs)
    if set(counted.values()) != {case.by_hand}:
        wrong.append(f"counted {counted}, by hand {case.by_hand}")
    if not all(torch.equal(value, state[name]) for name, value in case.module.state_dict().items()):
        wrong.append("the module's state changed")
    if not all(map(torch.equal, inputs, case.inputs)):
        wrong.append("the inputs changed")
    if not torch.equal(random_state, torch.get_rng_state()):
        wrong.append("the random generator moved")
    if any(parameter.grad is not None for parameter in case.module.parameters()):
        wrong.append("a gradient was left behind")
    for mode in ("no_grad", "inference"):
        meter = ComputeMeter()
        with meter.watch(case.module), MODES[mode]():
            case.module(*case.inputs)
        if meter.executed != case.by_hand:
            wrong.append(f"a meter was charged {meter.executed} under {mode}, by hand {case.by_hand}")
    if case.torch_sees_all:
        with FlopCounterMode(display=False) as counter:
            case.module(*case.inputs)
        if counter.get_total_flops() != case.by_hand:
            wrong.append(f"torch counts {counter.get_total_flops()}, by hand {case.by_hand}")
    return wrong


# Operators that compilers emit and eager programs do not: nothing is known about these.
UNCOUNTABLE: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "prims.sin": (torch.ops.prims.sin, (torch.ones(8),)),
    "prims.exp": (torch.ops.prims.exp, (torch.ones(8),)),
    "prims.sqrt": (torch.ops.prims.sqrt, (torch.ones(8),)),
    "prims.add": (torch.ops.prims.add, (torch.ones(8), torch.ones(8))),
    "static_runtime.signed_log1p": (torch.ops.static_runtime.signed_log1p, (torch.ones(8),)),
}


def refusals() -> dict[str, list[str]]:
    """Return, for each operator without a formula, the modes in which counting it failed to name it."""
    missed: dict[str, list[str]] = {}
    for name, (function, inputs) in UNCOUNTABLE.items():
        missed[name] = []
        for mode, context in MODES.items():
            with context():
                try:
                    count_flops(function, *inputs)
                except UncountableError as error:
                    if name in str(error):
                        continue
                missed[name].append(mode)
    return missed


TALLY = ("modules", "batched", "torch_agrees", "by_hand_only", "wrong")


def main() -> None:
    """Check as many modules as asked for, store the result, and fail if one is counted wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "counting" / "random_modules.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, dict[str, int]] = {}
    wrong: dict[int, list[str]] = {}
    for seed in range(options.seed, options.seed + options.modules):
        case = build(seed)
        tally = kinds.setdefault(case.kind, dict.fromkeys(TALLY, 0))
        found = failures(case)
        tally["modules"] += 1
        tally["batched"] += (seed // len(BUILDERS)) % 2
        tally["torch_agrees" if case.torch_sees_all else "by_hand_only"] += 1
        tally["wrong"] += bool(found)
        if found:
            wrong[seed] = [case.kind, *found]
    missed = refusals()
    record = {
        "modules": options.modules,
        "first_seed": options.seed,
        "modes": list(MODES),
        "kinds": kinds,
        "wrong": wrong,
        "uncountable_not_named": missed,
    }
    path = store(options.out, record)
    unrefused = sum(map(bool, missed.values()))
    print(f"{options.modules} modules, {len(wrong)} wrong, {unrefused} operators not refused: {path}")
    if wrong or unrefused:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
