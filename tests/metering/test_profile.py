"""``profile``: one policy on one machine, as plain data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from budget_wrappers.errors import CheckpointError, ConfigError, UncountableError
from budget_wrappers.metering import ComputeMeter, Energy, Latency, Profile, profile

QUICK = {"samples": 5, "warmup": 1, "energy_seconds": 0.01}
OBS = np.zeros((1, 4), np.float32)


def net() -> nn.Sequential:
    """2·(4·8 + 8·2) = 96 FLOPs, 4·8 + 8 + 8·2 + 2 = 58 parameters."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Agent:
    """With ``predict``, and a meter when it is given one."""

    def __init__(self, meter: ComputeMeter | None = None) -> None:
        self.actor, self.critic = net(), net()
        self.calls = 0
        if meter is not None:
            self.meter = meter
            meter.watch(self.actor, "actor")

    def predict(self, obs: np.ndarray, deterministic: bool = True) -> tuple[Tensor, None]:
        self.calls += 1
        with torch.no_grad():
            return self.actor(torch.as_tensor(obs)), None


def card(p99_us: float = 900.0, hz: float | None = None) -> Profile:
    latency = Latency(500.0, 800.0, p99_us, 510.0, samples=1000, warmup=100, threads=1, synchronised=None)
    return Profile("actor", 96, "matmul", 58, latency, Energy(None, "unavailable"), hz, None, "cpu", {"torch": "2"})


def test_a_modules_profile_holds_flops_parameters_latency_and_a_verdict() -> None:
    result = profile(net(), OBS, hz=1, **QUICK)
    assert (result.policy, result.flops, result.parameters, result.convention) == ("Sequential", 96, 58, "matmul")
    assert 0 < result.latency.p50_us <= result.latency.p95_us <= result.latency.p99_us
    assert (result.hz, result.fits, result.device) == (1.0, True, "cpu")
    assert result.energy.source in {"measured:rapl", "unavailable"}
    assert result.machine["torch"] == torch.__version__


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert profile(nn.Sequential(layer, layer), OBS, **QUICK).parameters == 20


def test_flops_are_in_the_convention_asked_for() -> None:
    # 96 + 8 biases + 8 activations + 2 biases
    assert profile(net(), OBS, convention="all", **QUICK).flops == 114


@pytest.mark.parametrize(
    ("p99_us", "hz", "verdict"), [(1000.0, 1000.0, True), (1000.1, 1000.0, False), (900.0, 2000.0, False)]
)
def test_it_fits_when_the_99th_percentile_is_at_most_one_period(p99_us: float, hz: float, verdict: bool) -> None:
    judged = card(p99_us).at(hz)
    assert (judged.hz, judged.fits) == (hz, verdict)


def test_without_a_rate_there_is_no_verdict() -> None:
    result = profile(net(), OBS, **QUICK)
    assert (result.hz, result.fits) == (None, None)


def test_an_agents_flops_come_from_its_own_meter_and_nothing_is_charged() -> None:
    meter = ComputeMeter()
    agent = Agent(meter)
    meter.add(5)
    before = meter.state_dict()
    result = profile(agent, OBS, **QUICK)
    assert (result.flops, result.parameters) == (96, 58)
    assert meter.state_dict() == before
    assert meter.take_flops() == 5


def test_an_agent_without_a_meter_is_counted_through_the_module_that_acts() -> None:
    agent = Agent()
    result = profile(agent, OBS, module=agent.actor, **QUICK)
    assert (result.policy, result.flops, result.parameters) == ("Agent", 96, 58)
    assert not agent.actor._forward_hooks


def test_a_module_that_does_not_act_is_refused() -> None:
    agent = Agent()
    with pytest.raises(UncountableError, match=r"Sequential given as module= did not run while Agent acted"):
        profile(agent, OBS, module=agent.critic, **QUICK)


def test_an_agent_whose_meter_sees_nothing_is_refused() -> None:
    agent = Agent(ComputeMeter())
    agent.meter.unwatch()
    with pytest.raises(UncountableError, match=r"meter of this Agent was not charged.*module="):
        profile(agent, OBS, **QUICK)


def test_a_sub_policy_is_worth_what_it_declares() -> None:
    class Small:
        name, flops = "small", 12

        def __call__(self, obs: np.ndarray) -> int:
            return 0

    result = profile(Small(), OBS, **QUICK)
    assert (result.policy, result.flops, result.parameters) == ("small", 12, None)


def test_a_policy_whose_flops_nobody_knows_is_refused_with_the_remedy() -> None:
    with pytest.raises(UncountableError, match=r"nobody can tell the FLOPs of a Agent.*Pass module="):
        profile(Agent(), OBS, **QUICK)


@pytest.mark.parametrize("hz", [0, -5, float("nan")])
def test_a_rate_that_is_none_is_refused_before_anything_runs(hz: float) -> None:
    agent = Agent()
    with pytest.raises(ConfigError, match="expected a control rate above 0"):
        profile(agent, OBS, hz=hz, module=agent.actor, **QUICK)
    assert agent.calls == 0


def test_a_profile_survives_json_and_files(tmp_path: Path) -> None:
    original = profile(net(), OBS, hz=50, **QUICK)
    assert Profile.from_json(original.to_json()) == original
    original.save(tmp_path / "card.json")
    assert Profile.load(tmp_path / "card.json") == original
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "{not json", json.dumps({**json.loads(card().to_json()), "extra": 1}), card().to_json()[:-20]],
    ids=["empty", "list", "nothing", "damaged", "unknown key", "truncated"],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a profile"):
        Profile.load(tmp_path / "card.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read a profile from .*nowhere\.json"):
        Profile.load(tmp_path / "nowhere.json")
