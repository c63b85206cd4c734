"""Opening trained policies by path, for the verbs that use one: ``eval``, ``profile`` and ``play``."""

import importlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.cli.names import agent_called
from agents.common.checkpoint import read_header
from agents.common.log import BEST, CHECKPOINT, CONFIG, read_json
from agents.common.run import RunConfig
from budget_wrappers.errors import CheckpointError, ConfigError, MissingExtraError
from budget_wrappers.metering import ComputeMeter


@dataclass(frozen=True)
class PolicyOptions:
    """Which policy, in which environment.

    Attributes:
        policy: a run's folder, a checkpoint, or (with --trust and --agent) a Stable-Baselines3 zip.
        which: of a run: the last state or the one with the highest evaluation.
        env: a Gymnasium id, where it is not the run's own.
        agent: class of a Stable-Baselines3 zip, such as SAC.
        trust: open a format that can run code when it is loaded. Only for files whose maker you trust.
        seed: of the first episode.
    """

    policy: Annotated[Path, tyro.conf.Positional]
    which: Literal["last", "best"] = "last"
    env: str | None = None
    agent: str | None = None
    trust: bool = False
    seed: int = 20_000


def open_policy(options: PolicyOptions, render_mode: str | None = None) -> tuple[Any, Any, str]:
    """Return the policy, its environment (wrapped, so that FLOPs are counted) and a name for both.

    Raises:
        ConfigError: a missing or unknown option.
        CheckpointError: a file that holds no policy.
        UntrustedFileError: a zip without ``trust``.
    """
    path, config = options.policy, None
    if path.is_dir():
        config = RunConfig.of(read_json(path / CONFIG)["run"])
        path = path / (BEST if options.which == "best" else CHECKPOINT)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: expected a run's folder or a checkpoint; check the path")
    env_id = options.env or (config.env if config else None)
    if env_id is None:
        raise ConfigError(f"env=None: expected a Gymnasium id to run {path} in; pass --env")
    setup = RunConfig(env_id) if config is None or options.env else config
    foreign = options.trust and zipfile.is_zipfile(path)
    name = options.agent if foreign else read_header(path)["agent"]
    agent_class = None if foreign else agent_called(name, str(path))
    meter = ComputeMeter()
    env = setup.make_env(meter, render_mode)
    policy = agent_class.load(path, env, meter=meter) if agent_class else open_foreign(path, options, meter)
    return policy, env, f"{name} in {env_id}"


def open_foreign(path: Path, options: PolicyOptions, meter: Any) -> Any:
    """Return a Stable-Baselines3 policy whose acting is charged to ``meter``.

    Raises:
        ConfigError: no class, or one that Stable-Baselines3 does not have.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    if options.agent is None:
        raise ConfigError(
            f"agent=None: expected the Stable-Baselines3 class that {path} was saved by; pass --agent SAC"
        )
    try:
        library = importlib.import_module("stable_baselines3")
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs Stable-Baselines3, which is not installed: expected `import stable_baselines3` to work; "
            "pip install 'budget-wrappers[sb3]'"
        ) from error
    if not hasattr(library, options.agent):
        raise ConfigError(f"agent={options.agent!r}: expected a class of stable_baselines3, such as SAC; pass --agent")
    model = getattr(library, options.agent).load(path, device="cpu")
    meter.watch(foreign_actor(model), "actor")
    return model


def foreign_actor(model: Any) -> Any:
    """Return the module of a Stable-Baselines3 model that computes its actions.

    Raises:
        ConfigError: a model that has no module of its own for that.
    """
    for name in ("actor", "q_net"):
        if getattr(model.policy, name, None) is not None:
            return getattr(model.policy, name)
    raise ConfigError(
        f"agent={type(model).__name__!r} computes actions by several modules: expected one with an actor or q_net, "
        "such as SAC, TD3 or DQN; count it in Python with budget_wrappers.profile(…, module=…)"
    )
