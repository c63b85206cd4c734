"""``budget tradeoff``: any methods at any budgets, beside controls: one table, one picture."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.cli.arguments import (
    Files,
    PresetOptions,
    RayAddress,
    files_of,
    flat,
    parse,
    say,
    words_after,
    write_resolved,
)
from agents.cli.paths import require_folder
from agents.cli.report import report
from agents.studies.names import PRESETS, presets_of
from budget_wrappers.errors import ConfigError, UntrustedFileError

VERB, SETTINGS = "tradeoff", "settings"


def run(arguments: Sequence[str]) -> int:
    """Train and compare as ``arguments`` say; return the exit code."""
    from agents.runs.workers import run_jobs
    from agents.studies.ray_tasks import run_on_ray
    from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

    where = Annotated[
        Path | None, tyro.conf.arg(aliases=["--folder"], help="folder of the study; by default runs/<time>-tradeoff.")
    ]
    label = Annotated[
        str | None, tyro.conf.arg(help="a name that the rows of table and picture begin with; by default none.")
    ]
    trust = Annotated[bool, tyro.conf.arg(help="load policies and import methods that a file names, or zips.")]
    films = Annotated[
        bool,
        tyro.conf.arg(
            help="film an episode of each row for the page, a GIF in its run folder; the same command with --films "
            "adds films to what is finished. A class of your own, whose policy is not kept, and controls that choose "
            "in a method's place have none. Without a display, MuJoCo draws where MUJOCO_GL=egl is set."
        ),
    ]
    form = dataclasses.make_dataclass(
        "Options",
        [
            ("setup", flat(TradeoffConfig)),
            ("run", where, None),
            ("label", label, None),
            ("trust", trust, False),
            ("films", films, False),
            ("ray", RayAddress, None),
            ("file", flat(PresetOptions), dataclasses.field(default_factory=PresetOptions)),
        ],
        frozen=True,
    )
    files, settings = settings_of(files_of(arguments, VERB))
    about = f"{TradeoffConfig.__doc__ or ''}\n\nPresets: {', '.join(presets_of(VERB))}."
    options = parse(form, arguments, "budget tradeoff", about, files)
    require_own_words(files, arguments, options.trust)
    if options.file.dry_run:
        write_resolved(options)
        for name, table in settings.items():
            sys.stdout.write(f"\n[{SETTINGS}.{json.dumps(name)}]\n")
            sys.stdout.writelines(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in table.items())
        return 0
    require_folder(options.run, "folder")
    folder = options.run or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-tradeoff"
    on = run_jobs if options.ray is None else functools.partial(run_on_ray, address=options.ray)
    try:
        written = run_tradeoff(
            options.setup, folder, on=on, settings=settings, trust=options.trust, films=options.films
        )
    except KeyboardInterrupt:
        say(f"\nWhat was trained is kept. Go on with the same options and --folder {folder}")
        raise
    return max(report([one], labels=[options.label] if options.label else []) for one in written)


def settings_of(files: Files) -> tuple[Files, dict[str, dict[str, Any]]]:
    """Return the files without their tables of settings, and these by method; of two the later file's counts.

    Raises:
        ConfigError: ``settings`` is no table of tables.
    """
    plain, found = [], {}
    for path, table in files:
        settings = table.get(SETTINGS, {})
        if not isinstance(settings, Mapping) or not all(isinstance(one, Mapping) for one in settings.values()):
            raise ConfigError(
                f"{path} has {SETTINGS} = {settings!r}: expected a table for each method, such as "
                f"[{SETTINGS}.bexa-sac]; put it under a method's name"
            )
        for name, one in settings.items():
            try:
                json.dumps(one)
            except TypeError as error:
                raise ConfigError(
                    f"{path} has [{SETTINGS}.{name}] with a date or time: expected numbers, texts, booleans or lists "
                    "of them; quote it"
                ) from error
        found |= {name: {key.replace("-", "_"): value for key, value in one.items()} for name, one in settings.items()}
        plain.append((path, {key: value for key, value in table.items() if key != SETTINGS}))
    return plain, found


def require_own_words(files: Files, arguments: Sequence[str], trust: bool) -> None:
    """Raise where a file, and not the command line, names a method that has a module imported.

    Raises:
        UntrustedFileError: with the word, without ``trust``.
    """
    from agents.studies.spec import MethodSpec

    if trust or words_after("--methods", arguments) is not None:
        return
    for path, table in files:
        words = table.get("methods", []) if not Path(path).is_relative_to(PRESETS) else []
        for word in words if isinstance(words, list) else [words]:
            if MethodSpec.parse(str(word)).runs_code:
                raise UntrustedFileError(
                    f"{path} names the method {word!r}: expected one that imports nothing, as it can run any code. If "
                    "you trust who made the file, pass --trust, or name the methods yourself with --methods"
                )
