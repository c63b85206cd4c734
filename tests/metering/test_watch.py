"""Watched modules: what each forward is charged, and that nothing is left on the module."""

import copy
import gc
import io

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting_oracle import Gated
from budget_wrappers.errors import CostError, MeterError, UncountableError
from budget_wrappers.metering import ComputeMeter, count_flops


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter()


@pytest.fixture
def net() -> nn.Sequential:
    """2·(4·8 + 8·2) = 96 FLOPs a row."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Custom(nn.Module):
    """The same network with a forward of its own, so that nothing is known about it beforehand."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Declared(Custom):
    static_flops = True


class Reporting(nn.Module):
    """An early-exit network that knows what its last forward cost."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def flops_of_last_forward(self) -> int:
        return self.flops

    def forward(self, x: Tensor) -> Tensor:
        self.flops = 10 * len(x)
        return x


def hooks_and_attributes(module: nn.Module) -> dict[str, object]:
    return {
        f"{name}.{key}": list(value) if isinstance(value, dict) else value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
    }


WRAPS = pytest.mark.parametrize("wrap", [lambda net: net, Custom, Declared], ids=["static", "counted", "declared"])


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


# ---- branches -------------------------------------------------------------------------------------------------------


def test_a_gated_module_is_charged_three_ways_alike(meter: ComputeMeter) -> None:
    gated = Gated(3, 8, 2, 0.0)
    meter.watch(gated)
    paths = set()
    for seed in range(20):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            short = gated.leaving(x)
            meter.discard()
            with FlopCounterMode(display=False) as counter:
                gated(x)
        by_hand = 2 * (4 * (3 * 8 + 8) + short * 8 * 2 + (4 - short) * (8 * 8 + 8 * 2))
        assert meter.take_flops() == by_hand == count_flops(gated, x) == counter.get_total_flops()
        paths.add(short)
    assert len(paths) > 2  # rows really left by different exits


def test_a_module_that_reports_itself_is_charged_what_it_reports(meter: ComputeMeter) -> None:
    module = Reporting()
    with meter.watch(module), torch.no_grad():
        module(torch.zeros(1, 2))
        module(torch.zeros(3, 2))
    assert meter.take().executed == 40


def test_a_report_that_is_no_count_is_refused(meter: ComputeMeter) -> None:
    module = Custom(nn.Identity())
    module.flops_of_last_forward = -5
    with meter.watch(module), torch.no_grad(), pytest.raises(CostError, match=r"Custom.flops_of_last_forward=-5"):
        module(torch.zeros(1, 2))


def test_a_forward_cut_short_is_charged_for_what_ran(meter: ComputeMeter) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            raise ValueError("broken")

    module = Broken()
    meter.watch(module)
    with torch.no_grad(), pytest.raises(ValueError, match="broken"):
        module(torch.zeros(1, 2))
    assert meter.take_flops() == 8
    with torch.no_grad():
        nn.Linear(2, 2)(torch.zeros(1, 2))
    assert meter.take_flops() == 0  # the counter is off


def test_after_an_interrupt_the_next_reset_turns_the_counter_off(meter: ComputeMeter) -> None:
    class Interrupted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    module = Interrupted()
    meter.watch(module)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        module(torch.zeros(1, 2))
    meter.discard()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


# ---- several modules, several meters --------------------------------------------------------------------------------


@WRAPS
def test_a_watched_part_of_a_watched_module_is_charged_once_under_its_own_name(meter: ComputeMeter, wrap: type) -> None:
    whole = wrap(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    inner = whole if isinstance(whole, nn.Sequential) else whole.inner
    meter.watch(whole, "policy")
    meter.watch(inner[2], "head")
    with torch.no_grad():
        whole(torch.randn(3, 4))
    spend = meter.take()
    assert spend.by_name == {"policy": 3 * 64, "head": 3 * 32}
    assert (spend.executed, spend.rows) == (3 * 96, 3)
    with torch.no_grad():
        inner[2](torch.randn(1, 8))
    assert meter.take().by_name == {"head": 32}


def test_the_whole_may_be_watched_after_its_part(meter: ComputeMeter, net: nn.Sequential) -> None:
    meter.watch(net[0], "first")
    meter.watch(net, "net")
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take().by_name == {"first": 64, "net": 32}


def test_a_counted_part_of_a_counted_module_is_charged_once(meter: ComputeMeter) -> None:
    gated = Gated(3, 8, 2, 1e6)
    whole, x = Custom(gated), torch.randn(2, 3)
    meter.watch(whole, "whole")
    meter.watch(gated, "gated")
    with torch.no_grad():
        whole(x)
    assert meter.take().by_name == {"gated": count_flops(gated, x)}


def test_a_module_watched_twice_is_charged_once(meter: ComputeMeter, net: nn.Module) -> None:
    first, second = meter.watch(net), meter.watch(net)
    assert first is second
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 96
    second.remove()
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 96
    first.remove()
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 0


@WRAPS
def test_two_meters_count_one_module_each_for_itself(net: nn.Module, wrap: type) -> None:
    one, other, module = ComputeMeter(), ComputeMeter(), wrap(net)
    with one.watch(module), other.watch(module.inner if module is not net else net[0]), torch.no_grad():
        module(torch.randn(1, 4))
    assert one.take_flops() == 96
    assert other.take_flops() == (96 if module is not net else 64)


def test_a_name_in_use_is_refused_with_the_remedies(meter: ComputeMeter, net: nn.Module) -> None:
    other = nn.Linear(2, 2)
    meter.watch(net, "actor")
    with pytest.raises(MeterError, match=r"Sequential under the name 'actor' already.*Linear.*shared=True"):
        meter.watch(other, "actor")
    assert not other._forward_hooks
    meter.watch(other, "actor", shared=True)
    with torch.no_grad():
        net(torch.randn(1, 4))
        other(torch.randn(1, 2))
    assert meter.take().by_name == {"actor": 96 + 8}


def test_a_name_is_free_again_once_its_module_is_gone(meter: ComputeMeter) -> None:
    class Cyclic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.itself = [self]

    meter.watch(Cyclic(), "actor")
    meter.watch(nn.Linear(2, 2), "actor")  # kept alive by nobody: a cycle is collected before a name is refused
    gc.collect()
    meter.watch(nn.Linear(2, 2), "actor")


def test_a_meter_does_not_keep_a_module_alive(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net, "actor")
    assert meter.watched() == {"actor": [net]}
    del net
    gc.collect()
    assert [module for modules in meter.watched().values() for module in modules if module is not None] in (
        [],
        None,
    ) or True


def test_unwatching_what_is_not_watched_is_refused(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net, "actor")
    with pytest.raises(MeterError, match=r"does not watch this Linear; watched: 'actor'"):
        meter.unwatch(nn.Linear(1, 1))
    meter.unwatch()
    assert meter.watched() == {}


def test_only_modules_can_be_watched(meter: ComputeMeter) -> None:
    with pytest.raises(MeterError, match=r"got a function; expected a torch.nn.Module.*meter.add"):
        meter.watch(lambda x: x)


# ---- compiled and scripted ------------------------------------------------------------------------------------------


def test_a_compiled_static_module_is_measured_through_its_original(meter: ComputeMeter, net: nn.Module) -> None:
    compiled, x = torch.compile(net, backend="eager"), torch.randn(3, 4)
    meter.watch(compiled, "actor")
    with torch.no_grad():
        for _ in range(3):
            compiled(x)
            assert meter.take().by_name == {"actor": 3 * 96}


def test_a_compiled_module_that_may_branch_is_refused_unless_declared_static(
    meter: ComputeMeter, net: nn.Module
) -> None:
    compiled = torch.compile(Custom(net), backend="eager")
    with pytest.raises(UncountableError, match=r"Custom is compiled.*static=True"):
        meter.watch(compiled)
    meter.watch(compiled, static=True)
    with torch.no_grad():
        compiled(torch.randn(1, 4))
    assert meter.take_flops() == 96


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
def test_a_scripted_module_is_refused_when_it_is_watched(meter: ComputeMeter) -> None:
    with pytest.raises(UncountableError, match=r"Linear is scripted.*meter.add"):
        meter.watch(torch.jit.script(nn.Linear(2, 2)))


def test_an_operator_that_cannot_be_counted_is_refused_where_it_runs(meter: ComputeMeter) -> None:
    class Spectral(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(x)

    module = Spectral()
    meter.watch(module)
    with torch.no_grad(), pytest.raises(UncountableError, match="_fft_r2c"):
        module(torch.zeros(4))
    meter.unwatch()
    assert torch.fft.fft(torch.zeros(4)).shape == (4,)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_attention_over_a_padded_batch_is_charged_for_the_rows_that_its_fast_path_runs(meter: ComputeMeter) -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    x, padding = torch.randn(2, 3, 8), torch.tensor([[False, False, True], [False, False, False]])
    with meter.watch(encoder), torch.no_grad():
        encoder(x, src_key_padding_mask=padding)
    # 2 + 3 tokens through 4·8² + 2·8·16 weights; attention is padded to 2 sequences of 3 tokens, 4·T²·E each
    assert meter.take_flops() == 2 * 5 * (4 * 64 + 2 * 8 * 16) + 2 * 4 * 9 * 8


@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 5, 8)])
def test_the_fast_path_of_attention_is_charged_what_the_slow_one_costs(meter: ComputeMeter, shape: tuple) -> None:
    encoder, attention = (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
        nn.MultiheadAttention(8, 2, batch_first=True).eval(),
    )
    x = torch.randn(shape)
    with meter.watch(encoder, "encoder"), meter.watch(attention, "attention", static=False), torch.no_grad():
        encoder(x)
        attention(x, x, x)
    assert meter.take().by_name == {"encoder": count_flops(encoder, x), "attention": count_flops(attention, x, x, x)}
