"""``budget sweep``: a random search over an agent's configuration, ranked by return over the whole training."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from agents.cli.arguments import FileOptions, RayAddress, flat, parse, say, write_resolved
from agents.cli.paths import require_folder
from agents.studies.names import AGENTS, agent_named
from budget_wrappers.errors import ConfigError

SPACES = Path(__file__).parent.parent / "studies" / "spaces"
"""Where the package keeps the published search spaces: ``<agent>.toml``."""


def run(arguments: Sequence[str]) -> int:
    """Search as ``arguments`` say; return the exit code."""
    from agents.runs.workers import run_jobs
    from agents.studies.ray_tasks import run_on_ray
    from agents.studies.space import read_space
    from agents.studies.sweep import SweepConfig, run_sweep

    if not arguments or arguments[0].startswith("-"):
        say(
            f"usage: budget sweep AGENT --env ID [OPTIONS]     AGENT: {', '.join(AGENTS)}\n"
            f"Published search spaces: {', '.join(published())}; any other agent needs --space FILE.toml.\n\n"
            "budget sweep AGENT --help lists the options."
        )
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    name, *rest = arguments
    agent_class = agent_named(name)
    where = Annotated[
        Path | None, tyro.conf.arg(aliases=["--folder"], help="folder of the search; by default runs/<time>-sweep.")
    ]
    space = Annotated[
        Path | None,
        tyro.conf.arg(help="TOML file of what each key is drawn from; by default the agent's published one."),
    ]
    form = dataclasses.make_dataclass(
        "Options",
        [
            ("setup", flat(SweepConfig)),
            ("space", space, None),
            ("run", where, None),
            ("ray", RayAddress, None),
            ("file", flat(FileOptions), dataclasses.field(default_factory=FileOptions)),
        ],
        frozen=True,
    )
    options = parse(form, rest, f"budget sweep {name}", SweepConfig.__doc__ or "")
    if options.file.dry_run:
        write_resolved(options)
        return 0
    require_folder(options.run, "folder")
    if options.space is None and name not in published():
        raise ConfigError(f"space=None: {name} has no published search space; pass --space FILE.toml")
    folder = options.run or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-sweep"
    drawn_from = read_space(options.space or SPACES / f"{name}.toml")
    on = run_jobs if options.ray is None else functools.partial(run_on_ray, address=options.ray)
    try:
        study = run_sweep(agent_class.__name__, options.setup, drawn_from, folder, on=on)
    except KeyboardInterrupt:
        say(f"\nWhat was trained is kept. Go on with the same options and --folder {folder}")
        raise
    say(f"{study.markdown()}\nSearch folder: {folder}")
    return 0


def published() -> list[str]:
    """Return the agents whose search space is published."""
    return sorted(path.stem for path in SPACES.glob("*.toml"))
