"""One width, one seed: SAC in a run folder of its own, resumed from its checkpoint and evaluated at the end."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.common.log import CONFIG, read_json
from agents.common.run import Run
from agents.common.run_config import RunConfig
from agents.common.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from agents.common.workers import Advance, Told
from agents.recipes.points import require_same
from agents.sac import SAC, SACConfig

LAYERS = 2
"""Hidden layers of each network, as published."""


@dataclass(frozen=True)
class WidthTraining:
    """One training, as plain data.

    Attributes:
        width: units of each hidden layer, critics included.
        seed: of the training.
        folder: of the study; the run has one of its own in it.
        run: settings of ``RunConfig``.
        learning: settings of ``SACConfig``, without its width and seed.
        episodes: of the final evaluation.
    """

    width: int
    seed: int
    folder: str
    run: Mapping[str, Any] = field(compare=False)
    learning: Mapping[str, Any] = field(compare=False)
    episodes: int = field(compare=False)

    @property
    def net_arch(self) -> tuple[int, ...]:
        """Widths of its hidden layers."""
        return (self.width,) * LAYERS

    @property
    def path(self) -> Path:
        """Of its run folder."""
        return Path(self.folder) / "runs" / f"width-{self.width}-seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return the agent's settings.

        Raises:
            ConfigError: a value of another type or out of bounds.
        """
        return SACConfig.of({**self.learning, "net_arch": self.net_arch, "seed": self.seed}).to_dict()

    def record(self) -> dict[str, Any]:
        """Return what its run folder says it was made with, as JSON gives it back."""
        run = dataclasses.asdict(RunConfig.of(self.run))
        return json.loads(json.dumps({"agent": SAC.__name__, "settings": self.settings(), "run": run}))


def finished_point(training: WidthTraining) -> TradeoffPoint | None:
    """Return what ``training`` measured, ``None`` where it is not at its end.

    Raises:
        ConfigError: its folder holds a run of other settings.
        CheckpointError: a damaged result.
    """
    path = training.path
    if (path / CONFIG).is_file():
        require_same(path, read_json(path / CONFIG), training.record())
    if not (path / FILE_NAME).is_file():
        return None
    (point,) = Comparison.read(path).points
    require_same(path, {"episodes": len(point.episodes)}, {"episodes": training.episodes})
    return point


def train_width(training: WidthTraining, advance: Advance) -> TradeoffPoint | None:
    """Train one width from its last checkpoint, or from the start, and evaluate it without its noise.

    Args:
        training: which.
        advance: told how many steps were taken, those of an earlier call included; when it returns ``False``,
            training ends with the episode and is saved.

    Returns:
        What was measured, ``None`` if it was stopped.
    """
    with Run.open(SAC, training.settings(), RunConfig.of(training.run), training.path) as run:

        def going_on(steps: int) -> bool:
            if not advance(steps):
                run.stop.stop()
            return True

        run.alongside.append(Told(going_on))
        if not run.train():
            return None
        run.report(training.episodes)
        # Nobody goes on from here, and a replay is most of a checkpoint: the policy alone stays.
        run.checkpoint.replay = False
        run.checkpoint.save(run.agent)
    return finished_point(training)
