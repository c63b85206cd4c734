"""Opening trained policies by path, for the verbs that use one: ``eval``, ``profile`` and ``play``."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.config import require
from agents.loop.checkpoint import load_agent, read_header
from agents.loop.interface import require_same_spaces
from agents.loop.known_methods import title_of
from agents.runs.log import BEST, CHECKPOINT, read_config
from agents.runs.records import NAME, TRUST
from agents.runs.run_config import RunConfig, require_same_run
from agents.runs.wrapper_states import show_states
from agents.studies.names import agent_called, policy_file
from agents.studies.sub_policies import open_sub_policies_with
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, is_exit_policy
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.files import inside
from budget_wrappers.integrations.sb3 import NormalisedModel, load, metered
from budget_wrappers.integrations.sb3_files import load_normaliser
from budget_wrappers.metering import ComputeMeter


@dataclass(frozen=True)
class PolicyOptions:
    """Which policy, in which environment.

    Attributes:
        policy: a run's folder, a checkpoint, what retrofit wrote, (with --trust) a Stable-Baselines3 zip, or
            bundled/half-cheetah, which comes with the package.
        which: of a run: the last state or the one with the highest evaluation.
        env: a Gymnasium id, where it is not the run's own.
        agent: class of a Stable-Baselines3 zip, such as SAC, where the zip does not tell.
        vec_normalize: of a Stable-Baselines3 zip, the file of the VecNormalize that it was trained in; with --trust.
        trust: open a format that can run code when it is loaded, and import the module that a run's environment names.
            Only for files whose maker you trust.
        seed: of the first episode.
    """

    policy: Annotated[Path, tyro.conf.Positional]
    which: Literal["last", "best"] = "last"
    env: str | None = None
    agent: str | None = None
    vec_normalize: Path | None = None
    trust: bool = False
    seed: int = 20_000


def setup_of(options: PolicyOptions) -> tuple[Path, RunConfig]:
    """Return the file that ``options`` name, and what its environment is: the run's own, or the one given.

    Raises:
        ConfigError: no environment, a run folder without a configuration, a seed below 0.
        CheckpointError: no such file, a link in the run's folder, or a checkpoint of another configuration.
        UntrustedFileError: the run's environment names a module to import, and neither ``env`` nor ``trust`` is given.
    """
    require(options.seed >= 0, "seed", options.seed, "0 or more")
    path, config = policy_file(options.policy), None
    if path.is_dir():
        record = read_config(path, options.trust or options.env is not None, (*TRUST, *NAME))["run"]
        path = inside(path, BEST if options.which == "best" else CHECKPOINT)
        if options.env is None:
            config = RunConfig.of(record)
            if path.is_file():
                require_same_run(read_header(path)["extra"].get("run"), record, path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: expected a run's folder or a checkpoint; check the path")
    env_id = options.env or (config.env if config else None)
    if env_id is None:
        raise ConfigError(f"env=None: expected a Gymnasium id to run {path} in; pass --env")
    return path, config or RunConfig(env_id)


def open_policy(options: PolicyOptions, render_mode: str | None = None) -> tuple[Any, Any, str]:
    """Return the policy, its environment (wrapped, so that FLOPs are counted) and a name for both.

    Raises:
        ConfigError: a missing or unknown option.
        CheckpointError: a file that holds no policy.
        UntrustedFileError: a pickle, or a zip without ``trust``.
    """
    path, setup = setup_of(options)
    env_id = setup.env
    meter = ComputeMeter()
    open_sub_policies_with(options.trust)
    if zipfile.is_zipfile(path):
        model = load(path, options.agent, trust=options.trust, device="cpu")
        env, policy = setup.make_env(meter, render_mode), metered(model, meter)
        if options.vec_normalize is not None:
            normaliser = load_normaliser(options.vec_normalize, model, setup.make_env(), trust=options.trust)
            policy = NormalisedModel(model, normaliser)
        require_same_spaces(env, model.observation_space, model.action_space)
        return policy, env, f"{type(model).__name__} in {env_id}"
    if options.vec_normalize is not None:
        raise ConfigError(
            f"vec_normalize={str(options.vec_normalize)!r} with {path}: expected a Stable-Baselines3 zip, as only its "
            "models have one; leave it out"
        )
    if is_exit_policy(path):
        exits, env = BudgetedExitPolicy.load(path, meter), setup.make_env(meter, render_mode)
        exits.require_spaces(env.observation_space, env.action_space)
        return exits, env, f"a policy with exits, b = {exits.budget:g}, in {env_id}"
    header = read_header(path)
    agent_class = agent_called(header["agent"], str(path))
    env = setup.make_env(meter, render_mode)
    show_states(env, header["extra"])
    agent = load_agent(agent_class, path, env, meter, replay=False)
    return agent, env, f"{title_of(agent)} in {env_id}"
