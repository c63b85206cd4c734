"""``budget train``: an agent or a recipe on an environment, from the start or from a run's last checkpoint."""

import dataclasses
import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.cli.arguments import (
    PresetOptions,
    files_of,
    flat,
    keys_of,
    parse,
    say,
    value_of,
    write_resolved,
)
from agents.cli.methods import Group, aliases_of, fields_for, groups_of, methods_of
from agents.cli.paths import require_folder
from agents.loop.known_methods import METHODS
from agents.runs.log import read_config
from agents.runs.records import foreign_module
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.studies.names import AGENTS, agent_called, agent_named, presets_of
from agents.studies.sub_policies import any_zip, open_sub_policies_with


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint at an episode's end, to the same numbers as if it had never stopped.

    So does a run that had ended within an episode and is given more steps, but for what follows the number of steps
    (schedules of exploration, priorities and pruning). Where no such checkpoint is there, it goes on within the
    episode with a new one, to other numbers, and says so: in episodes that do not end (--max-episode-steps ends them),
    and of several environments (--n-envs) before their first checkpoint.

    Attributes:
        resume: the run's folder.
        steps: train up to this step instead of the configured one.
        trust: open sub-policies in a format that can run code when it is loaded, and import the module that the run's
            environment names. Only for folders whose maker you trust.
    """

    resume: Path
    steps: int | None = None
    trust: bool = False


def run(arguments: Sequence[str]) -> int:
    """Train as ``arguments`` say; return the exit code."""
    if value_of("--resume", arguments) is not None:
        words = arguments[1:] if arguments[0] in AGENTS else arguments
        return resume(parse(ResumeOptions, words, "budget train", ResumeOptions.__doc__ or ""))
    if not arguments or arguments[0].startswith("-"):
        say(usage())
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    name, *rest = arguments
    agent_class = agent_named(name)
    about = f"Train {agent_class.__name__}."
    if presets_of(name):
        about += f" Presets: {', '.join(presets_of(name))}."
    files = files_of(rest, name)
    groups = groups_of(agent_class, files, rest)
    form = form_for(agent_class, groups)
    aliases = aliases_of(groups, agent_class, keys_of(form))
    options = parse(form, rest, f"budget train {name}", about, files, aliases)
    methods = methods_of(groups, options)
    if options.file.dry_run:
        write_resolved(options, aliases)
        return 0
    require_folder(options.run, "folder")
    config: RunConfig = options.setup
    open_sub_policies_with(options.trust)
    folder = options.run or default_folder(name, config.env, options.agent.seed)
    with Run.start(agent_class, vars(options.agent), config, folder, **methods) as training:
        return train(training)


def resume(options: ResumeOptions) -> int:
    """Go on with a run."""
    open_sub_policies_with(options.trust)
    agent_class = agent_called(read_config(options.resume, options.trust)["agent"], str(options.resume))
    with Run.resume(agent_class, options.resume, options.steps, options.trust) as training:
        within = ", in a new episode: its numbers are not those of a run that never stopped"
        say(
            f"Resuming {options.resume} at step {training.agent.num_timesteps:,} of {training.config.steps:,}"
            + (within if training.within_episode else "")
        )
        return train(training)


def train(training: Run) -> int:
    """Train, tell what came of it and return the exit code."""
    folder = training.folder.path
    trusted = foreign_module(training.config.env) is not None or any_zip(training.config.sub_policies)
    again = shlex.join(["budget", "train", "--resume", str(folder), *(["--trust"] if trusted else [])])
    try:
        finished = training.train(progress_bar=True)
        if training.stop.reason is not None:
            done = "Trained to the end and saved, not evaluated" if finished else "Saved"
            say(f"{done} at step {training.agent.num_timesteps:,}. Go on with: {again}")
            return 128 + (training.stop.reason or signal.SIGINT)
        result = training.report().summary()
    except KeyboardInterrupt:
        begun = training.folder.checkpoint.exists()
        where = ". Go on from the last checkpoint" if begun else " before the first checkpoint. Begin again"
        say(f"Stopped at once{where} with: {again}")
        raise
    say(
        f"{training.config.env}: return {result['return']:.1f} ± {result['return_std']:.1f} over "
        f"{result['episodes']} episodes, {result['flops_per_step']:,.0f} FLOPs a step (matmul)\nRun folder: {folder}"
    )
    return 0


def form_for(agent_class: Any, groups: Sequence[Group] = ()) -> type:
    """Return the dataclass of ``budget train``'s options for one agent and its budget methods."""
    where = Annotated[
        Path | None,
        tyro.conf.arg(aliases=["--folder"], help="folder of the run; by default runs/<time>-<agent>-<env>-<seed>."),
    ]
    trust = Annotated[bool, tyro.conf.arg(help="open zips among --sub-policies, which can run code when loaded.")]
    return dataclasses.make_dataclass(
        "Options",
        [
            ("setup", flat(RunConfig)),
            ("agent", flat(agent_class.config_class), dataclasses.field(default_factory=agent_class.config_class)),
            ("run", where, None),
            ("trust", trust, False),
            ("file", flat(PresetOptions), dataclasses.field(default_factory=PresetOptions)),
            *fields_for(groups),
        ],
        frozen=True,
    )


def default_folder(name: str, env_id: str, seed: int) -> Path:
    """Return a new folder's path whose name sorts by time."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{env_id.replace('/', '_')}-{seed}"


def usage() -> str:
    """Return what ``budget train --help`` says."""
    return (
        f"usage: budget train AGENT [--with METHODS] [OPTIONS]     AGENT: {', '.join(AGENTS)}; "
        f"METHODS: {', '.join(METHODS)}\n"
        "       budget train --resume RUN [--steps N]\n\n"
        "budget train AGENT --help lists the options of an agent."
    )
