"""How an agent acts through early exits: the work behind an open gate is not done, and what ran is charged by exit."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from budget_wrappers.core import Convention
from budget_wrappers.deploy.numpy_exits import NumpyExits
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.modules.exits import EarlyExitNetwork

Acting = Literal["early_exit", "backbone", "ensemble"]
"""``"early_exit"``: through the gates. ``"backbone"``: always the last exit, no gate asked. ``"ensemble"``: the mean of
all exits."""


class ExitForward:
    """``network`` as a function of rows that charges the meter by the exits taken: ``"exit 1"`` and so on.

    Args:
        network: what acts.
        meter: charged.
        acting: see ``Acting``.

    Attributes:
        names: what is charged: the exits, or the one way to act where gates are not asked.
        flops: of one row, of each of them, in the meter's convention.
        counts: rows that acted through each of them, ``(len(names),)``; evaluations put it back as it was.
        taken: index into ``names`` for each row of the last call, ``(n,)``; ``None`` before one.
        last_flops: FLOPs of the last call, over all rows.
    """

    def __init__(self, network: EarlyExitNetwork, meter: ComputeMeter, acting: Acting = "early_exit") -> None:
        self.network, self._meter, self.acting = network, meter, acting
        self._cpu = next(network.parameters()).device.type == "cpu"
        self._engine = NumpyExits(network) if self._cpu else None
        self._ways = tuple(range(len(network.exits))) if acting == "early_exit" else (None,)
        self.names = [acting if way is None else f"exit {way + 1}" for way in self._ways]
        self.counts = np.zeros(len(self.names), dtype=np.int64)
        self.taken: np.ndarray | None = None
        self.last_flops = 0
        self._forced: np.ndarray | None = None
        self.follow()
        for name in self.names:
            meter.add(0, name, rows=0)  # known from the start: an episode of random actions costs 0 and is no mistake

    def follow(self) -> None:
        """Look at the network anew, after its layers have changed size or parts were put in."""
        self._plain, self._seen = self._looks_plain(), self.network.parts
        self.flops = tuple(self._count(way, self._meter.convention) for way in self._ways)
        self._matmul_flops = np.array([self._count(way, "matmul") for way in self._ways])
        # Asked for at every update.
        self._cheapest, self._dearest = min(self.network.flops), max(self.network.flops)

    def _count(self, way: int | None, convention: Convention) -> int:
        """Return the FLOPs of one row that leaves at exit ``way``, or that acts without gates."""
        parameter = next(self.network.parameters())
        x = parameter.new_zeros(1, self.network.inputs)
        draws = torch.as_tensor(self._draws_to(way)[None])
        act = {
            "early_exit": lambda: self.network.leave(x, draws.to(x)),
            "backbone": lambda: self.network.last(x),
            "ensemble": lambda: self.network.every(x),
        }[self.acting]
        with evaluating(self.network):
            return int(count_flops(act, convention=convention))

    def _draws_to(self, way: int | None) -> np.ndarray:
        """Return draws, ``(K − 1,)``, with which every row leaves at exit ``way``."""
        # No probability is above 1 and every one above −1: each gate before the exit stays closed, its own opens.
        gates = range(len(self.network.exits) - 1)
        return np.array([-1.0 if gate == way else 1.0 for gate in gates], dtype=np.float32)

    @contextlib.contextmanager
    def leaving_at(self, way: int) -> Iterator[None]:
        """Let every row leave at one exit inside the block, the gates on its way asked: to time that exit.

        Args:
            way: index into ``names``; without gates there is one way to act, and nothing changes.
        """
        before, self._forced = self._forced, self._draws_to(way)
        try:
            yield
        finally:
            self._forced = before

    def cost_of(self, counts: np.ndarray) -> float:
        """Return the mean cost of rows counted as ``counts`` are: 0 for the cheapest exit, 1 for the dearest."""
        return self.normalised(counts @ self._matmul_flops / counts.sum())

    def normalised(self, flops: float) -> float:
        """Return what ``flops`` a row, in the ``matmul`` convention, are in the unit of budgets."""
        return float((flops - self._cheapest) / (self._dearest - self._cheapest))

    def __call__(self, observation: np.ndarray, rng: np.random.Generator, threshold: bool = False) -> np.ndarray:
        """Return the output of the exits taken, ``(n, outputs)``, for ``observation`` ``(n, O)``.

        An ensemble's is that of all exits, ``(K, n, outputs)``: whoever acts takes the mean of what they would do.

        Args:
            observation: float32 rows.
            rng: gates are drawn from it.
            threshold: gates open from a probability of ½ on instead, and nothing is drawn.
        """
        x = observation.astype(np.float32, copy=False)
        self._keep_up()
        if self.acting != "early_exit":
            self.last_flops = self.flops[0] * len(x)
            self._meter.add(self.last_flops, self.acting, len(x))
            self.counts += len(x)
            self.taken = np.zeros(len(x), dtype=np.int64)
            return self.at(x, len(self.network.exits) - 1) if self.acting == "backbone" else self._every(x)
        if self._forced is not None:
            draws: np.ndarray | None = np.tile(self._forced, (len(x), 1))
        else:
            draws = None if threshold else rng.random((len(x), len(self.names) - 1), dtype=np.float32)
        output, self.taken = self._leave(x, draws)
        if len(x) == 1:
            way = int(self.taken[0])
            self.counts[way] += 1
            self.last_flops = self.flops[way]
            self._meter.add(self.last_flops, self.names[way])
            return output
        rows = np.bincount(self.taken, minlength=len(self.names))
        self.counts += rows
        self.last_flops = sum(flops * count for flops, count in zip(self.flops, rows.tolist(), strict=True))
        split = self._meter.row_ledger is not None  # a vector wrapper asks which rows cost what
        for way, (name, flops, count) in enumerate(zip(self.names, self.flops, rows.tolist(), strict=True)):
            if count:
                # One batch, whatever exits its rows took.
                by_row = np.where(self.taken == way, flops, 0) if split else None
                self._meter.add(flops * count, name, len(x), by_row=by_row)
        return output

    def at(self, x: np.ndarray, exit_index: int) -> np.ndarray:
        """Return the output of one exit, ``(n, outputs)``; no gate is asked, nothing is charged or counted.

        Args:
            x: float32 rows, ``(n, inputs)``.
            exit_index: 0 … K − 1.

        Raises:
            IndexError: there is no such exit.
        """
        self._keep_up()
        if self._engine is not None:
            return self._engine.at(x, exit_index, self._plain)
        with self._meter.paused():
            at = self.network.at(torch.as_tensor(x, device=next(self.network.parameters()).device), exit_index)
        return at.cpu().numpy()

    def _keep_up(self) -> None:
        """Follow, if parts of the network were replaced or put in, or were given hooks."""
        if self._looks_plain() != self._plain or self.network.parts is not self._seen:
            self.follow()

    def _looks_plain(self) -> bool:
        """Tell whether the engine can run the network as it is; with any other part, or a hook, torch has to."""
        return self.network.plain() if self._engine is None else self._engine.fits()

    def _leave(self, x: np.ndarray, draws: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._engine is not None:
            return self._engine.leave(x, draws, self._plain)
        device = next(self.network.parameters()).device
        with self._meter.paused():
            drawn = None if draws is None else torch.as_tensor(draws, device=device)
            output, taken = self.network.leave(torch.as_tensor(x, device=device), drawn)
        return output.cpu().numpy(), taken.cpu().numpy()

    def _every(self, x: np.ndarray) -> np.ndarray:
        if self._engine is not None:
            return self._engine.every(x, self._plain)
        with self._meter.paused():
            return self.network.every(torch.as_tensor(x, device=next(self.network.parameters()).device)).cpu().numpy()


__all__ = ["Acting", "ExitForward"]
