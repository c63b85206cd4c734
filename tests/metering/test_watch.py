"""A watched module: what each forward is charged, and that nothing is left on the module."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from budget_wrappers.metering import ComputeMeter, count_flops
from tests.metering.modules import WRAPS, Custom


def hooks_and_attributes(module: nn.Module) -> dict[str, object]:
    return {
        f"{name}.{key}": list(value) if isinstance(value, dict) else value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
    }


@WRAPS
def test_every_forward_without_gradients_is_charged(meter: ComputeMeter, net: nn.Module, wrap: type) -> None:
    module = wrap(net)
    meter.watch(module, "actor")
    for rows in (1, 3, 1):
        with torch.no_grad():
            module(torch.randn(rows, 4))
        spend = meter.take()
        assert (spend.executed, spend.charged, spend.rows) == (96 * rows, 96 * rows, rows)
        assert spend.by_name == {"actor": 96 * rows}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
@WRAPS
def test_gradients_off_is_acting_whatever_the_training_flag(
    meter: ComputeMeter, net: nn.Module, wrap: type, training: bool, mode: type
) -> None:
    module = wrap(net).train(training)
    with meter.watch(module), mode():
        module(torch.randn(2, 4))
    assert meter.totals == {"act": 192, "charged": 192, "learn": 0, "rows": 2}


@WRAPS
def test_unwatching_leaves_nothing(meter: ComputeMeter, net: nn.Module, wrap: type) -> None:
    module = wrap(net)
    before = hooks_and_attributes(module)
    with meter.watch(module), torch.no_grad():
        module(torch.randn(1, 4))
    assert hooks_and_attributes(module) == before
    with torch.no_grad():
        module(torch.randn(1, 4))
    assert meter.totals["act"] == 96


@WRAPS
def test_the_output_is_the_bare_modules_to_the_bit(meter: ComputeMeter, net: nn.Module, wrap: type) -> None:
    module, x = wrap(net), torch.randn(3, 4)
    bare = module(x)
    with meter.watch(module):
        assert torch.equal(module(x), bare)


@WRAPS
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy], ids=["deep", "shallow"])
def test_a_copy_of_a_watched_module_charges_nothing(
    meter: ComputeMeter, net: nn.Module, wrap: type, duplicate: object
) -> None:
    module = wrap(net)
    meter.watch(module)
    target = duplicate(module)
    with torch.no_grad():
        target(torch.randn(1, 4))
        copy.deepcopy(target)(torch.randn(1, 4))
    assert meter.totals["act"] == 0
    with torch.no_grad():
        module(torch.randn(1, 4))
    assert meter.totals["act"] == 96


@WRAPS
def test_a_watched_module_can_be_saved_whole_and_what_is_loaded_charges_nothing(
    meter: ComputeMeter, net: nn.Module, wrap: type
) -> None:
    module = wrap(net)
    meter.watch(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded, x = torch.load(file, weights_only=False), torch.randn(1, 4)
    with torch.no_grad():
        answer = loaded(x)
        assert meter.totals["act"] == 0
        assert torch.equal(answer, module(x))


def test_state_dicts_of_watched_and_bare_modules_are_alike(meter: ComputeMeter, net: nn.Module) -> None:
    keys = list(net.state_dict())
    meter.watch(net)
    assert list(net.state_dict()) == keys


# ---- shapes and rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "x", "rows"),
    [
        (nn.Linear(4, 2), torch.zeros(4), 1),
        (nn.Linear(4, 2), torch.zeros(3, 4), 3),
        (nn.Linear(4, 2), torch.zeros(3, 5, 4), 3),
        (nn.Embedding(4, 2), torch.zeros(3, dtype=torch.long), 3),
        (nn.Embedding(4, 2), torch.zeros((), dtype=torch.long), 1),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(0)), torch.zeros(3, 8, 8), 1),
        (nn.Conv2d(3, 2, 3), torch.zeros(5, 3, 8, 8), 5),
        (nn.LSTM(4, 2), torch.zeros(7, 3, 4), 3),
        (nn.LSTM(4, 2), torch.zeros(7, 4), 1),
        (nn.GRU(4, 2, batch_first=True), torch.zeros(7, 3, 4), 7),
        (nn.LSTM(4, 2), nn.utils.rnn.pack_sequence([torch.zeros(3, 4), torch.zeros(2, 4)]), 2),
        (Custom(nn.Linear(4, 2)), torch.zeros(4), 1),
        (Custom(nn.Conv1d(4, 2, 1)), torch.zeros(4, 6), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_rows_are_the_batch_of_the_first_tensor(meter: ComputeMeter, module: nn.Module, x: object, rows: int) -> None:
    with meter.watch(module), torch.no_grad():
        module(x)
    assert meter.take().rows == rows


def test_a_static_module_is_run_once_more_for_a_new_shape_and_never_again(meter: ComputeMeter) -> None:
    runs: list[int] = []

    class Seen(nn.Module):
        static_flops = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            runs.append(len(x))
            return self.layer(x)

    module = Seen()
    with meter.watch(module), torch.no_grad():
        for rows in (1, 1, 1, 2, 2, 1):
            module(torch.zeros(rows, 2))
    assert len(runs) == 6 + 2
    assert meter.totals["act"] == 8 * (1 + 1 + 1 + 2 + 2 + 1)


def test_arguments_by_name_and_several_arguments_are_told_apart(meter: ComputeMeter) -> None:
    layer, x, y = nn.Bilinear(3, 4, 5), torch.randn(2, 3), torch.randn(2, 4)
    with meter.watch(layer), torch.no_grad():
        layer(x, y)
        assert meter.take_flops() == count_flops(layer, x, y)
        layer(input1=x[:1], input2=y[:1])
        assert meter.take_flops() == count_flops(layer, x[:1], y[:1])


def test_arguments_that_are_no_tensors_are_part_of_what_decides(meter: ComputeMeter) -> None:
    class Depth(nn.Module):
        static_flops = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor, depth: int) -> Tensor:
            for _ in range(depth):
                x = self.layer(x)
            return x

    module = Depth()
    with meter.watch(module), torch.no_grad():
        for depth in (1, 3, 1, 2):
            module(torch.zeros(1, 2), depth)
            assert meter.take_flops() == 8 * depth


def test_a_layer_of_another_size_is_measured_after_recount(meter: ComputeMeter, net: nn.Sequential) -> None:
    handle, x = meter.watch(net), torch.randn(1, 4)
    with torch.no_grad():
        net(x)
        net[0], net[2] = nn.Linear(4, 3), nn.Linear(3, 2)
        handle.recount()
        meter.take()
        net(x)
    assert meter.take_flops() == 2 * (4 * 3 + 3 * 2)


def test_batch_normalisation_in_training_is_updated_once_a_forward(meter: ComputeMeter) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with meter.watch(net), torch.no_grad():
        net(torch.randn(4, 2))
    assert net[1].num_batches_tracked == 1


def test_the_all_convention_tells_training_from_evaluation() -> None:
    meter, norm, x = ComputeMeter(convention="all"), nn.BatchNorm1d(3), torch.randn(4, 3)
    with meter.watch(norm), torch.no_grad():
        norm.train()(x)
        assert meter.take_flops() == 12 * 7
        norm.eval()(x)
        assert meter.take_flops() == 12 * 4
