"""Latency and energy: what is measured, on what, and where each number comes from."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import Energy, measure_energy, measure_latency
from budget_wrappers.metering import energy as energy_module
from budget_wrappers.metering import latency as latency_module
from budget_wrappers.metering.energy import NvmlCounter, RaplCounter, find_counter


class Clock:
    """A clock that stands still until somebody works."""

    def __init__(self) -> None:
        self.ns = 0

    def work(self, microseconds: float) -> None:
        self.ns += round(microseconds * 1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency_module, "perf_counter_ns", lambda: clock.ns)
    monkeypatch.setattr(energy_module, "perf_counter", lambda: clock.ns / 1e9)
    return clock


def test_percentiles_are_those_of_single_calls_after_the_warm_up(clock: Clock) -> None:
    durations = iter([1e6] * 3 + [float(n) for n in range(1, 101)])  # three slow first calls, then 1 to 100 µs
    latency = measure_latency(lambda: clock.work(next(durations)), samples=100, warmup=3)
    # "higher": the 50 % point of 1…100 lies at 50.5, the 95 % point at 95.05, the 99 % point at 99.01
    assert (latency.p50_us, latency.p95_us, latency.p99_us) == (51.0, 96.0, 100.0)
    assert latency.mean_us == pytest.approx(50.5)
    assert (latency.samples, latency.warmup, latency.synchronised) == (100, 3, None)


def test_the_threads_are_stated_and_put_back() -> None:
    before, seen = torch.get_num_threads(), []
    latency = measure_latency(lambda: seen.append(torch.get_num_threads()), samples=1, warmup=0, threads=2)
    assert (latency.threads, seen, torch.get_num_threads()) == (2, [2], before)


@pytest.mark.parametrize("numbers", [{"samples": 0}, {"warmup": -1}, {"threads": 0}], ids=str)
def test_numbers_out_of_bounds_are_refused(numbers: dict) -> None:
    with pytest.raises(ConfigError, match=r"(samples|warmup|threads)=-?\d: expected at least [01] and at most"):
        measure_latency(lambda: None, **numbers)


def test_a_device_that_nobody_can_wait_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="device=meta"):
        measure_latency(lambda: None, device="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_device_is_waited_for() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    latency = measure_latency(lambda: x @ x, samples=20, warmup=3, device="cuda")
    assert latency.synchronised == "cuda"
    assert latency.p50_us > 100  # 137 GFLOP cannot take less; an unsynchronised launch takes ten


# ---- energy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages; the second has a part of its own, which must not be added again."""
    for zone, microjoules in (("intel-rapl:0", 100), ("intel-rapl:1", 900), ("intel-rapl:1:0", 50)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("999\n")
    return tmp_path


def test_rapl_adds_up_the_packages(powercap: Path) -> None:
    counter = RaplCounter(powercap)
    start = counter.now()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("300\n")
    assert counter.joules_since(start) == pytest.approx(200e-6)


def test_rapl_follows_a_counter_that_starts_over(powercap: Path) -> None:
    counter = RaplCounter(powercap)
    start = counter.now()
    (powercap / "intel-rapl:1" / "energy_uj").write_text("40\n")  # 900 → 999, over to 0, → 40: 140 counts
    assert counter.joules_since(start) == pytest.approx(140e-6)


def test_measured_energy_is_the_windows_by_its_calls(clock: Clock, powercap: Path) -> None:
    file = powercap / "intel-rapl:0" / "energy_uj"

    def call() -> None:
        clock.work(250_000)
        file.write_text(str(int(file.read_text()) + 20))

    energy = measure_energy(call, seconds=1.0, counter=RaplCounter(powercap))
    assert energy == Energy(joules=pytest.approx(20e-6), source="measured:rapl", calls=4, seconds=1.0)


def test_an_estimate_is_watts_times_seconds_and_says_so(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_module, "find_counter", lambda device: None)
    energy = measure_energy(lambda: clock.work(500_000), seconds=1.0, watts=10.0)
    assert energy == Energy(joules=5.0, source="estimated", calls=2, seconds=1.0)


def test_without_counter_and_watts_energy_is_unavailable_and_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_module, "find_counter", lambda device: None)
    calls = []
    assert measure_energy(lambda: calls.append(1)) == Energy(None, "unavailable")
    assert calls == []


def test_no_counter_is_found_where_there_is_none_or_it_may_not_be_read(tmp_path: Path, powercap: Path) -> None:
    assert find_counter("cpu", tmp_path / "nowhere") is None
    assert isinstance(find_counter("cpu", powercap), RaplCounter)
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert find_counter("cpu", powercap) is None


@pytest.mark.parametrize("numbers", [{"seconds": 0.0}, {"seconds": float("nan")}, {"watts": -1.0}], ids=str)
def test_windows_and_powers_out_of_bounds_are_refused(numbers: dict) -> None:
    with pytest.raises(ConfigError, match=r"(seconds|watts)=\S+: expected a (window|power) above 0"):
        measure_energy(lambda: None, **numbers)


class FakeNvml:
    """The driver's library, as far as it is used."""

    def __init__(self, code: int = 0) -> None:
        self.millijoules, self.code, self.uuid = 5_000, code, b""

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's own name
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: object) -> int:  # noqa: N802
        self.uuid = uuid
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, value: object) -> int:  # noqa: N802
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.code


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))


@pytest.mark.usefixtures("board")
def test_nvml_reads_the_board_of_the_cuda_device_in_joules() -> None:
    library = FakeNvml()
    counter = NvmlCounter(torch.device("cuda", 0), library)
    start = counter.now()
    library.millijoules += 1_500
    assert counter.joules_since(start) == 1.5
    assert library.uuid == b"GPU-1234"


@pytest.mark.usefixtures("board")
def test_a_board_without_a_counter_is_an_error_that_find_counter_takes_for_none() -> None:
    with pytest.raises(OSError, match="NVML returned error 3"):
        NvmlCounter(torch.device("cuda", 0), FakeNvml(code=3))
