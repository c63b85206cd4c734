"""Watched modules that branch, report themselves, fail, or are compiled, scripted or fused."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting_oracle import Gated
from budget_wrappers.errors import CostError, UncountableError
from budget_wrappers.metering import ComputeMeter, count_flops
from tests.metering.modules import Custom, Reporting


def test_a_gated_module_is_charged_three_ways_alike(meter: ComputeMeter) -> None:
    torch.manual_seed(0)
    gated = Gated(3, 8, 2, 0.0)
    meter.watch(gated)
    paths = set()
    for seed in range(20):
        x = 5 * torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            short = gated.leaving(x)
            meter.discard()
            with FlopCounterMode(display=False) as counter:
                gated(x)
        by_hand = 2 * (8 * (3 * 8 + 8) + short * 8 * 2 + (8 - short) * (8 * 8 + 8 * 2))
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
    class Compiled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.prims.sin(x)

    module = Compiled()
    meter.watch(module)
    with torch.no_grad(), pytest.raises(UncountableError, match=r"prims\.sin"):
        module(torch.zeros(4))
    meter.unwatch()
    assert torch.ops.prims.sin(torch.zeros(4)).shape == (4,)


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
