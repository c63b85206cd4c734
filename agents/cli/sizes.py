"""``budget sizes``: which widths the small and the large sub-policy get, searched as the publication says."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.cli.arguments import (
    PresetOptions,
    files_of,
    flat,
    parse,
    say,
    write_resolved,
)
from agents.cli.paths import require_folder
from agents.cli.tables import read_toml
from agents.studies.names import preset_file, presets_of

RECIPE = "asymmetric"
"""Whose presets this verb takes, and who takes what it finds."""


def run(arguments: Sequence[str]) -> int:
    """Search as ``arguments`` say; return the exit code: 1 where there are no two sizes."""
    from agents.methods.asymmetric_config import AsymmetricConfig
    from agents.studies.sizes import SizesConfig, run_sizes

    where = Annotated[
        Path | None, tyro.conf.arg(aliases=["--folder"], help="folder of the search; by default runs/<time>-sizes.")
    ]
    form = dataclasses.make_dataclass(
        "Options",
        [
            ("setup", flat(SizesConfig)),
            ("run", where, None),
            ("file", flat(PresetOptions), dataclasses.field(default_factory=PresetOptions)),
        ],
        frozen=True,
    )
    ours = {field.name for field in dataclasses.fields(SizesConfig)}
    unused = [field.name for field in dataclasses.fields(AsymmetricConfig) if field.name not in ours]
    about = f"{SizesConfig.__doc__ or ''}\n\nPresets: {', '.join(presets_of(RECIPE))}."
    options = parse(form, arguments, "budget sizes", about, files_of(arguments, RECIPE, unused))
    if options.file.dry_run:
        write_resolved(options)
        return 0
    require_folder(options.run, "folder")
    folder = options.run or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-sizes"
    try:
        study = run_sizes(options.setup, folder)
    except KeyboardInterrupt:
        say(f"\nWhat was trained is kept. Go on with the same options and --folder {folder}")
        raise
    say(study.markdown())
    if study.sizes.large is None or study.sizes.small is None:
        return 1
    say(f"Train both and their master with:\n{next_command(options.setup, study.sizes, options.file.preset)}")
    return 0


def next_command(config: Any, sizes: Any, preset: str | None = None) -> str:
    """Return the command that trains the sub-policies of these sizes with the settings of the search.

    Args:
        config: a ``SizesConfig``.
        sizes: with both widths.
        preset: what the search was told, which the command repeats: the master's settings are in it.
    """
    from agents.methods.asymmetric_config import AsymmetricConfig
    from agents.runs.run_config import RunConfig
    from agents.studies.sizes_table import LAYERS

    taken = {**vars(AsymmetricConfig()), "steps": RunConfig.steps}
    taken |= {} if preset is None else read_toml(preset_file(RECIPE, preset))
    wanted = {"steps": config.steps, **config.learning}
    words = ["budget", "train", RECIPE, *([] if preset is None else ["--preset", preset]), "--env", config.env]
    words += ["--small-net-arch", *[str(sizes.small)] * LAYERS, "--net-arch", *[str(sizes.large)] * LAYERS]
    for name, value in wanted.items():
        if taken[name] != value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
