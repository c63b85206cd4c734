"""What acts and what it costs: who evaluates the actor, what the meter is charged, and what an update costs."""

import weakref
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from agents.loop.acting import NumpyForward
from agents.loop.method import Method
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter, count_flops


class MeteredActor:
    """Base of ``MethodHost``: the actor, or a method in its place, and the account of both.

    Attributes:
        flops_per_action: the most that one action costs, in the meter's convention.
    """

    meter: ComputeMeter
    actor: nn.Module
    device: torch.device
    observation_shape: tuple[int, ...]
    methods: tuple[Method, ...] = ()
    numpy_forward: NumpyForward | None = None
    """Evaluates the actor in numpy, where it is a perceptron on the CPU."""
    flops_per_action: int
    acting_offset: int = 0
    """Added to the numbers under which methods note who acted, in a replay that several agents share."""
    _substitute: Method | None = None
    _watch: Any = None

    def start_metering(self) -> None:
        """Charge what acts from now on: a method in place of the whole actor, or the actor itself."""
        # Stands for the agent on its meter, which keeps it, and would keep the agent.
        self._stands_for_us = object()
        for held in self.methods:
            flops = held.start_metering(self)
            if flops is not None and self._substitute is not None:
                names = f"{self._substitute.name} and {held.name}"
                raise ConfigError(f"{names} both act in place of the actor: expected one; leave the other out")
            if flops is not None:
                self._substitute, self.flops_per_action = held, flops
        if self._substitute is None:
            # Shared: an agent that was loaded, or made again in the same session, takes its place beside the old one.
            self._watch = self.meter.watch(self.actor, "actor", shared=True, owner=self._stands_for_us)
            self.flops_per_action = self._count_action()

    def stop_watching(self) -> None:
        """Stop charging the actor's forward passes: somebody else charges the agent as a whole."""
        if self._watch is not None:
            self._watch.remove()

    def _count_action(self) -> int:
        example = torch.zeros((1, *self.observation_shape), device=self.device)
        return int(count_flops(self.actor, example, convention=self.meter.convention))

    def engine(self) -> NumpyForward | None:
        """Return the numpy engine, ``None`` where the actor is not or no longer the perceptron that it evaluates."""
        if self.numpy_forward is None or self.numpy_forward.fits():
            return self.numpy_forward
        self.numpy_forward = None
        self._recount()
        return None

    def _recount(self) -> None:
        """Count anew what an action and an update cost."""
        if self._watch is not None:
            self._watch.recount()
            self.flops_per_action = self._count_action()
        self._renew_token()

    def acted(self, observation: np.ndarray, deterministic: bool) -> np.ndarray | None:
        """Return the actor's output for rows, metered: a method's in its place, or the numpy engine's.

        Returns:
            ``(n, outputs)``, ``(K, n, outputs)`` of several sub-policies; ``None`` where torch has to run the actor.
        """
        self.meter.acts_for(self._stands_for_us)
        if self._substitute is not None:
            return self._substitute.act(self, observation, deterministic)
        engine = self.engine()
        return None if engine is None else engine(observation)

    def flops_spent(self, rows: int = 1) -> int:
        """Return what the last action cost, which was one on ``rows`` observations."""
        if self._substitute is None:
            return rows * self.flops_per_action
        return self._substitute.flops_of_last_action(self)

    @property
    def acting_counts(self) -> list[np.ndarray]:
        """What methods count of who acted, in place: evaluations put it back."""
        return [counts for held in self.methods for counts in held.acting_counts(self)]

    def learning(self, kind: str) -> AbstractContextManager[None]:
        """Charge the products inside to learning; work of one ``kind`` is counted once and then added."""
        return self.meter.phase("learn", key=(self._token, kind))

    def kind_of_update(self) -> str:
        """Return a name for all that the next update does."""
        if not self.methods:
            return self.update_kind()
        return ", ".join([self.update_kind(), *(f"{held.name}: {held.update_kind(self)}" for held in self.methods)])

    def _renew_token(self) -> None:
        """Forget what updates cost: it is remembered under an object of its own, as an address is given out again."""
        if hasattr(self, "_forget_costs"):
            self._forget_costs()
        self._token = object()
        self._forget_costs = weakref.finalize(self, forget_costs, self.meter.learn_costs, self._token)
        self._forget_costs.atexit = False


def forget_costs(costs: dict[Any, int], token: object) -> None:
    """Remove what is remembered under ``token``."""
    for key in [key for key in costs if isinstance(key, tuple) and key[0] is token]:
        del costs[key]
