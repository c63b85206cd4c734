"""Run folders: everything that made a run and everything it made.

``config.json`` (resolved), ``run.json`` (command, versions, commit), ``metrics.jsonl`` (one JSON object a row),
``tensorboard/``, ``checkpoint.safetensors``, ``best.safetensors``, pictures. Clock fields of a row stand together under
``"clock"``, so that two runs can be compared without them.
"""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from agents.loop.versions import versions
from agents.runs.records import (
    CONFIG,
    METRICS,
    RUN,
    line_of,
    read_config,
    read_json,
    read_rows,
    write_json,
    write_sealed,
)
from budget_wrappers.errors import CheckpointError, ConfigError, MissingExtraError
from budget_wrappers.files import appending, inside, is_text, opened_to_read, remove_partials

try:
    import fcntl
except ImportError:  # not on Windows, where runs are not guarded against a second writer
    fcntl = None  # type: ignore[assignment]

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
OWN_FILES = (CHECKPOINT, BEST, "boundary.safetensors", CONFIG, RUN, METRICS, "tradeoff.json")
"""Files that earlier versions wrote under ``<name>.partial`` first."""


class RunFolder:
    """A folder of one run, made new or opened again.

    Args:
        path: of the folder.
        config: the resolved configuration, JSON-able; ``None`` opens a folder that exists.
        command: the command line that made the run; by default this process's.
        tensorboard: also write TensorBoard events.

    Raises:
        ConfigError: a folder that holds a run already, or holds none where ``config`` is ``None``; a name that
            UTF-8 cannot hold.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any] | None = None,
        command: str | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.path = Path(path)
        if not is_text(str(path)):
            raise ConfigError(f"run={str(path)!a}: expected a name that UTF-8 can hold; give the folder another one")
        if config is None:
            read_json(self.path / CONFIG)  # raises where there is no run, before anything is made there
        self.path.mkdir(parents=True, exist_ok=True)
        # The lock comes first: of two processes that start a run here, one writes nothing at all.
        self._metrics = appending(self.path / METRICS)
        try:
            claim(self._metrics, self.path)
            if config is not None:
                self._begin(config, command)
            self.config: dict[str, Any] = read_json(self.path / CONFIG) if config is None else dict(config)
        except BaseException:
            self._metrics.close()
            raise
        self.tensorboard = tensorboard
        self._events: Any = None
        remove_partials(self.path, OWN_FILES)

    def _begin(self, config: Mapping[str, Any], command: str | None) -> None:
        """Write what the run is made with, unless the folder holds a run."""
        if (self.path / CONFIG).exists() or (self.path / CONFIG).is_symlink() or self._metrics.tell():
            raise ConfigError(
                f"run={str(self.path)!r} holds a run already: expected a new folder; resume it with --resume "
                f"{self.path}, or choose another name"
            )
        write_sealed(self.path / RUN, provenance(command))
        write_json(self.path / CONFIG, config)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint that a resumed run starts from; raises ``CheckpointError`` for a link."""
        return inside(self.path, CHECKPOINT)

    @property
    def best(self) -> Path:
        """Path of the agent with the highest evaluation; raises ``CheckpointError`` for a link."""
        return inside(self.path, BEST)

    def write(self, row: Mapping[str, Any], **clock: float) -> None:
        """Append ``row`` to the metrics, with ``clock`` under that key.

        Args:
            row: JSON-able; ``step`` is the environment step it belongs to.
            clock: numbers that differ from run to run.
        """
        self._metrics.write(line_of(row, clock))
        # Every row reaches the operating system at once: a killed process loses none, a reader sees all.
        self._metrics.flush()
        if self.tensorboard:
            self._write_events(row, clock)

    def flush(self) -> int:
        """Hand everything to the operating system and return how many bytes the metrics have."""
        self._metrics.flush()
        if self._events is not None:
            self._events.flush()
        return self._metrics.tell()

    def cut(self, size: int, step: int) -> None:
        """Forget the metrics beyond ``size`` bytes: those that a killed run wrote after its checkpoint.

        Args:
            size: bytes to keep, from the checkpoint.
            step: environment step of the checkpoint; TensorBoard hides what follows it.

        Raises:
            CheckpointError: the metrics are shorter than that, or a row of them is damaged.
        """
        present = self._metrics.tell()
        if type(size) is not int or not 0 <= size <= present:
            raise CheckpointError(
                f"{self.path / METRICS} has {present} bytes: expected at least {size}, as many as it had when the "
                "checkpoint was made; put the whole file back, or start a new run from the checkpoint with `load`"
            )
        with opened_to_read(self.path / METRICS) as file:
            file.seek(max(size - 1, 0))
            if size and file.read(1) != b"\n":
                raise CheckpointError(
                    f"{self.path / METRICS} has no row that ends at its {size}th byte: expected one, as when the "
                    "checkpoint was made; the file was changed, take another copy"
                )
        self._metrics.truncate(size)
        self._metrics.seek(0, 2)
        for _ in self.rows():
            pass  # raises now, and not when the trained run is reported
        self._purge_from = step + 1

    def rows(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the metrics, of one kind where it is given."""
        self._metrics.flush()
        return read_rows(self.path, kind)

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    _purge_from: int | None = None

    def _write_events(self, row: Mapping[str, Any], clock: Mapping[str, float]) -> None:
        if self._events is None:
            self._events = summary_writer(inside(self.path, "tensorboard"), self._purge_from)
        kind = row.get("kind", "training")
        for name, value in {**row, **{f"clock/{key}": value for key, value in clock.items()}}.items():
            if isinstance(value, int | float) and name != "step":
                self._events.add_scalar(f"{kind}/{name}", value, row.get("step", 0))


def claim(file: BinaryIO, folder: Path) -> None:
    """Make this process the only writer of the run, until the file is closed or the process ends.

    Raises:
        ConfigError: another process is.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigError(
            f"run={str(folder)!r} is being written by another process: expected a run that has ended; wait for it, or "
            "stop it with Ctrl-C"
        ) from error


def summary_writer(folder: Path, purge_from: int | None) -> Any:
    """Return TensorBoard's writer.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoard events need the package tensorboard, which is not installed: expected "
            "`import tensorboard` to work; pip install tensorboard, or pass --no-tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=purge_from)


def provenance(command: str | None) -> dict[str, Any]:
    """Return the command, the versions and the commit."""
    return {"command": command or shlex.join(["budget", *sys.argv[1:]]), "versions": versions(), "commit": commit()}


def commit() -> str | None:
    """Return the git commit of the source, marked ``-dirty`` where files differ from it; ``None`` outside git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


__all__ = [
    "BEST",
    "CHECKPOINT",
    "CONFIG",
    "METRICS",
    "RUN",
    "RunFolder",
    "provenance",
    "read_config",
    "read_json",
    "read_rows",
    "write_json",
    "write_sealed",
]
