"""Wall-clock latency of one call: warmed up, synchronised, with the threads it ran on stated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch

from budget_wrappers.arguments import a_count, a_function, an_instance
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class Latency:
    """How long one call takes.

    Attributes:
        p50_us: median, microseconds.
        p95_us: 95th percentile, microseconds.
        p99_us: 99th percentile, microseconds.
        mean_us: mean, microseconds.
        samples: calls that were timed, one by one.
        warmup: calls before them that were not.
        threads: torch's threads within an operator.
        synchronised: the device that was waited for within each timed call; None on the CPU, which needs no waiting.
    """

    p50_us: float
    p95_us: float
    p99_us: float
    mean_us: float
    samples: int
    warmup: int
    threads: int
    synchronised: str | None


MOST_CALLS, MOST_THREADS = 10**7, 4096


def measure_latency(
    call: Callable[[], Any],
    *,
    samples: int = 1000,
    warmup: int = 100,
    threads: int | None = None,
    device: torch.device | str = "cpu",
) -> Latency:
    """Time ``call`` again and again and return the percentiles of single calls.

    Args:
        call: what to time, without arguments.
        samples: timed calls; the 99th percentile of fewer than 100 is their maximum.
        warmup: calls before them.
        threads: torch's threads for the time of the measurement; as they are by default.
        device: where ``call`` computes. Kernels on an accelerator run on after the call that started them has
            returned, so each timed call waits for the device.

    Raises:
        ConfigError: a number of samples, warm-up calls or threads out of bounds.
    """
    a_function("call", call)
    samples, warmup = a_count("samples", samples, 1, MOST_CALLS), a_count("warmup", warmup, 0, MOST_CALLS)
    threads = None if threads is None else a_count("threads", threads, 1, MOST_THREADS)
    device = as_device(device)
    wait = synchroniser(device)
    times = np.empty(samples)
    with _threads(threads):
        used = torch.get_num_threads()
        for _ in range(warmup):
            call()
        wait()
        for index in range(samples):
            start = perf_counter_ns()
            call()
            wait()
            times[index] = perf_counter_ns() - start
    p50, p95, p99 = np.percentile(times, (50, 95, 99), method="higher") / 1e3
    return Latency(
        p50_us=float(p50),
        p95_us=float(p95),
        p99_us=float(p99),
        mean_us=float(times.mean() / 1e3),
        samples=samples,
        warmup=warmup,
        threads=used,
        synchronised=None if device.type == "cpu" else str(device),
    )


def as_device(device: torch.device | str) -> torch.device:
    """Return a device of torch.

    Raises:
        ConfigError: torch knows none of that name.
    """
    an_instance("device", device, torch.device | str, "a device of torch or its name")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} ({error}): expected 'cpu', 'cuda' or another device of torch") from error


def synchroniser(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until ``device`` has finished: nothing to do on the CPU."""
    if device.type == "cpu":
        return lambda: None
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    raise ConfigError(f"device={device}; expected cpu, cuda or mps: how to wait for another device is not known")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
