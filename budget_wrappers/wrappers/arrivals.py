"""When late actions arrive, and which one acts meanwhile: what both versions of ``ComputeDelayAction`` run."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence


class Delays:
    """How many control periods late an action arrives.

    Args:
        points: FLOPs and microseconds, by FLOPs; in between is interpolated, beyond the ends they hold on.
        period: of control, in seconds.
    """

    def __init__(self, points: Sequence[tuple[float, float]], period: float) -> None:
        self._flops, self._microseconds = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
        self._period = period

    def of(self, flops: int) -> int:
        """Return the control periods that ``flops`` FLOPs take; none where nothing was computed."""
        if not flops:
            return 0
        seconds = 1e-6 * float(np.interp(flops, self._flops, self._microseconds))
        return math.floor(seconds / self._period + 1e-9)  # a whole period stays one in spite of rounding


class Arrivals:
    """The actions of one environment that are under way.

    Args:
        delays: how late each one arrives.
        initial: what acts until the first of an episode arrives.

    Attributes:
        applied: what acts.
        late: control periods by which the last action is late.
    """

    def __init__(self, delays: Delays, initial: Any) -> None:
        self._delays, self._initial = delays, initial
        self.restart()

    def restart(self) -> None:
        """Begin an episode: no action is under way, and the initial one acts."""
        self.applied, self.late = self._initial, 0
        self._step, self._computed_at, self._newest = 0, -1, None
        self._under_way: list[tuple[int, int, Any]] = []  # when each arrives, when it was computed, and itself

    def step(self, action: Any, flops: int) -> None:
        """Send ``action`` on its way, and let the newest one that has arrived act.

        Args:
            action: computed at this step.
            flops: what that cost.
        """
        # A wrapper outside that repeats an action hands it in again, for nothing: it is under way already.
        if flops or not data_equivalence(action, self._newest):
            self.late = self._delays.of(flops)
            self._newest = copy.deepcopy(action)  # policies reuse their buffers
            self._under_way.append((self._step + self.late, self._step, self._newest))
        for arrives, computed_at, one in self._under_way:
            if arrives <= self._step and computed_at > self._computed_at:
                self.applied, self._computed_at = one, computed_at
        self._under_way = [one for one in self._under_way if one[0] > self._step and one[1] > self._computed_at]
        self._step += 1


__all__ = ["Arrivals", "Delays"]
