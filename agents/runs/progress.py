"""Signs of life of long work: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agents.loop.callbacks import Callback

FIRST_AFTER, AT_MOST_EVERY = 5.0, 60.0
"""Seconds until the first line of a log file, and between two lines once some are written."""


class Lines:
    """Writes how far the work is, in lines whose distance doubles from 5 to 60 seconds.

    Args:
        total: environment steps of all.
        label: what each line begins with.
        done: steps that were done before.
    """

    def __init__(self, total: int, label: str, done: int = 0) -> None:
        self.total, self.label, self.done = total, label, done
        self.start, self.from_step = time.monotonic(), done
        self.wait, self.due = FIRST_AFTER, self.start + FIRST_AFTER

    def update(self, steps: int) -> None:
        """Count ``steps`` more, and write a line if one is due."""
        self.done += steps
        now = time.monotonic()
        if now >= self.due:
            self.wait = min(2 * self.wait, AT_MOST_EVERY)
            self.due = now + self.wait
            rate = (self.done - self.from_step) / (now - self.start)
            share = self.done / max(self.total, 1)
            sys.stderr.write(
                f"{self.label}: {self.done:,} of {self.total:,} steps ({share:.0%}), {rate:,.0f} steps a second\n"
            )
            sys.stderr.flush()


class LogLines(Callback):
    """``Lines`` of one training.

    Args:
        total: environment steps at which it ends.
        label: what each line begins with.
    """

    stride = 20
    """Steps between two looks at the clock."""

    def __init__(self, total: int, label: str) -> None:
        self.total, self.label = total, label

    def on_training_start(self, agent: Any) -> None:
        self.lines = Lines(self.total, self.label, agent.num_timesteps)

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.lines.done + self.stride:
            self.lines.update(agent.num_timesteps - self.lines.done)
        return True


@contextmanager
def progress_bar(total: int, label: str, shown: bool | None = None, done: int = 0) -> Iterator[Callable[[int], Any]]:
    """Show one bar over all jobs, or lines where there is no terminal; yield what advances it by environment steps.

    Args:
        total: environment steps of all.
        label: in front of it.
        shown: ``True`` for the bar, ``False`` for nothing; by default the bar where standard error is a terminal and
            lines elsewhere.
        done: steps that were done before; they do not count towards the speed.
    """
    from tqdm import tqdm

    if shown is None and not sys.stderr.isatty():
        yield Lines(total, label, done).update
        return
    # miniters: tqdm would wait for as many steps again as its first update had, which a resumed training makes large.
    settings = {"unit": "step", "unit_scale": True, "dynamic_ncols": True, "miniters": 1}
    with tqdm(initial=done, total=total, disable=shown is False, desc=label, **settings) as bar:
        yield bar.update
