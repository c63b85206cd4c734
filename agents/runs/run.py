"""Training runs: an agent, its environments, its callbacks and a run folder, started or resumed.

A run that was killed at any moment is resumed from its last checkpoint and ends with the same weights and the same
``metrics.jsonl``, clock fields aside, as one that never was. A first signal lets the running episode end, for 1,000
steps at most, and saves; a second one stops at once (``agents.runs.interrupt``). ``Checkpoint`` says which checkpoints
lie within an episode, and what becomes of a run that has no other one to go on from.
"""

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from agents.loop.callbacks import Callback, StopWhen, load_state_of
from agents.loop.checkpoint import read_header, require_class, restore_agent
from agents.loop.evaluate import REPORT_SEED, Evaluation, evaluate_policy, undisturbed
from agents.loop.fitting import require_config
from agents.loop.known_methods import completed, methods_from, records_of, require_same_methods, title_of
from agents.report.curves import OVER_TRAINING, Curve, curve_to_the_end
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.interrupt import interruptible
from agents.runs.log import CONFIG, RunFolder, read_config
from agents.runs.monitors import Checkpoint, Evaluate, Log, RecordVideo
from agents.runs.progress import LogLines
from agents.runs.records import numbers_in, read_provenance
from agents.runs.run_config import RunConfig, require_same_run
from agents.runs.wrapper_states import load_states
from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError
from budget_wrappers.files import inside
from budget_wrappers.metering import ComputeMeter


def make_agent(agent_class: type, settings: Mapping[str, Any], config: RunConfig, **parts: Any) -> Any:
    """Return a new agent with a meter of its own, which the wrappers of its environment read."""
    offline = agent_class.offline
    if offline != (config.dataset is not None):
        raise ConfigError(
            f"dataset={config.dataset!r} for {agent_class.__name__}: expected "
            + ("a data set to learn from; pass --dataset" if offline else "None, as it learns online; use CQL for data")
        )
    torch.set_num_threads(config.threads)
    meter = ComputeMeter()
    env = config.make_training_env(meter)
    parts |= {"dataset": config.dataset} if offline else {}
    try:
        return agent_class(env, meter=meter, **settings, **parts)
    except BaseException as error:
        env.close()
        # What torch raises for networks that no memory holds.
        if isinstance(error, (RuntimeError, MemoryError, OverflowError)) and not isinstance(error, BudgetError):
            raise ConfigError(
                f"no {agent_class.__name__} can be made with {dict(settings)} ({error!r}): expected networks and a "
                "replay that memory holds; make net_arch and buffer_size smaller"
            ) from error
        raise


@dataclass
class Run:
    """A run that can be trained.

    Attributes:
        agent: in the state from which training goes on.
        config: of the run.
        folder: of the run.
        within_episode: whether it was resumed within an episode, so that its numbers are others than those of a run
            that never stopped.
    """

    agent: Any
    config: RunConfig
    folder: RunFolder
    within_episode: bool = False

    def __post_init__(self) -> None:
        config, meter = self.config, self.agent.meter
        self.evaluation_env = config.make_env(meter)
        if config.penalty_budget:
            self.evaluation_env.get_wrapper_attr("follow")(self.agent.env)
        self.stop = StopWhen()
        self.log = Log(self.folder, config.log_every)
        self.alongside: list[Callback] = [self.log]
        if config.eval_every:
            self.alongside.append(
                Evaluate(
                    self.evaluation_env,
                    config.eval_every,
                    config.eval_episodes,
                    best=self.folder.best,
                    log=self.folder,
                    stop=self.stop,
                )
            )
        if config.video_every:
            filmed = config.make_env(render_mode="rgb_array")
            self.alongside.append(RecordVideo(filmed, inside(self.folder.path, "videos"), config.video_every))
        self.checkpoint = Checkpoint(self.folder.checkpoint, config.checkpoint_every, self.alongside, self.folder)

    @classmethod
    def start(
        cls,
        agent_class: type,
        settings: Mapping[str, Any],
        config: RunConfig,
        folder: str | Path,
        command: str | None = None,
        **parts: Any,
    ) -> Self:
        """Return a new run; nothing is written before agent and environment were made.

        Args:
            agent_class: an ``OffPolicyAgent``.
            settings: of the agent.
            config: of the run.
            folder: where it is kept; must not hold a run.
            command: the command line, for the record.
            parts: what the agent takes besides settings, budget methods among it.
        """
        with contextlib.ExitStack() as undo:
            agent = make_agent(agent_class, settings, config, **parts)
            undo.callback(agent.env.close)
            record = {
                "agent": agent_class.__name__,
                "settings": agent.config.to_dict(),
                "run": dataclasses.asdict(config),
            }
            record |= {"methods": given} if (given := agent.methods_given) else {}
            opened = RunFolder(folder, record, command, config.tensorboard)
            undo.callback(opened.close)
            run = cls(agent, config, opened)
            undo.pop_all()
        return run

    @classmethod
    def resume(
        cls, agent_class: type, folder: str | Path, steps: int | None = None, trust: bool = False, **parts: Any
    ) -> Self:
        """Return the run of ``folder`` as it was at its last checkpoint, or at its start if it made none.

        Args:
            agent_class: the class that ``config.json`` names.
            folder: of the run.
            steps: train up to this step instead of the configured one.
            trust: whether the record may name a module to import, as ``module:id`` of an environment does.
            parts: what the agent was given besides settings; budget methods of this package are made again from the
                record where none are given.

        Raises:
            ConfigError: the folder holds no run's configuration.
            CheckpointError: a checkpoint or metrics that do not fit each other or the configuration, or other methods
                than those of the record; a link in the folder.
            UntrustedFileError: an environment of a module that is not this package's, without ``trust``.
        """
        methods = read_config(Path(folder), trust)["methods"]  # raises for another program's
        parts |= methods_from(
            agent_class, {name: listed for name, listed in methods.items() if not parts.get(name)}, str(folder)
        )
        with contextlib.ExitStack() as undo:
            opened = RunFolder(folder)
            undo.callback(opened.close)
            config = RunConfig.of(opened.config["run"])
            if steps is not None:
                config = dataclasses.replace(config, steps=steps)
            opened.tensorboard = config.tensorboard
            settings = opened.config["settings"]
            if opened.checkpoint.exists():
                # Before memory is asked for: a stranger's settings may want more than there is.
                stored = agent_class.config_class.of(settings)
                header = read_header(opened.checkpoint)
                require_class(header, agent_class.__name__, opened.checkpoint)
                require_config(header, stored, agent_class.__name__, opened.checkpoint)
            agent = make_agent(agent_class, settings, config, **parts)
            undo.callback(agent.env.close)
            require_same_methods(methods, agent.methods_given, str(folder))
            run = cls(agent, config, opened)
            if opened.checkpoint.exists():
                run._take_up()
            else:
                opened.cut(0, 0)
            undo.pop_all()
        return run

    def _take_up(self) -> None:
        """Bring agent, callbacks and metrics to where they were at the last checkpoint.

        Where training is to go on from within an episode, the exact checkpoint before it is taken.
        """
        path, metrics = self.folder.checkpoint, self.folder.flush()
        try:
            header = read_header(path)
            within, written = bool(header["extra"].get("within_episode")), header["extra"]["metrics_bytes"]
            ended = header["counters"]["num_timesteps"] >= self.config.steps
            # Shorter metrics are those of a run that was killed after it had gone on from the exact checkpoint.
            if self.checkpoint.boundary.exists() and ((within and not ended) or metrics < written):
                path, within = self.checkpoint.boundary, False
            extra = restore_agent(self.agent, path)
            require_same_run(extra.get("run"), self.folder.config["run"], path)
            load_state_of(self.alongside, extra["callbacks"])
            load_states(self.agent.env, extra, path)
            self.folder.cut(extra["metrics_bytes"], self.agent.num_timesteps)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, BudgetError):
                raise
            raise CheckpointError(
                f"{path} is not the checkpoint of this run ({error!r}): expected the callbacks' state and the length "
                "of the metrics beside the agent; take the checkpoint of this run"
            ) from error
        self.within_episode = within and not ended
        self.checkpoint.saved_exactly = path == self.folder.checkpoint and not within

    @classmethod
    def open(
        cls, agent_class: type, settings: Mapping[str, Any], config: RunConfig, folder: str | Path, **parts: Any
    ) -> Self:
        """Return the run of ``folder`` as ``resume`` does, or where there is none a new one as ``start`` does.

        Raises:
            ConfigError: the folder holds a run of another agent, other settings or other methods.
        """
        if not (Path(folder) / CONFIG).exists():
            return cls.start(agent_class, settings, config, folder, **parts)
        stored, kind = read_config(Path(folder)), agent_class.config_class
        theirs, ours = {"agent": stored["agent"]}, {"agent": agent_class.__name__}
        if theirs == ours:
            theirs = {**vars(kind.of(stored["settings"])), **vars(RunConfig.of(stored["run"]))}
            theirs |= {"methods": completed(stored["methods"], str(folder))}
            ours = {**vars(kind.of(settings)), **vars(config)}
            ours |= {"methods": completed(records_of(agent_class, parts), str(folder))}
        for key, value in ours.items():
            if theirs[key] != value:
                raise ConfigError(
                    f"{folder} holds a run with {key}={theirs[key]!r}: expected {value!r}, as asked for now; choose "
                    "another folder, or delete this one to train anew"
                )
        return cls.resume(agent_class, folder, trust=True, **parts)  # the caller has named the same environment

    def train(self, progress_bar: bool = False) -> bool:
        """Train to the end, or to an interrupt; return whether the end was reached.

        The agent is saved in both cases. An error leaves the last checkpoint and the metrics as they are.

        Args:
            progress_bar: show how far training is: a bar on a terminal, a line now and then elsewhere.
        """
        remaining = self.config.steps - self.agent.num_timesteps
        if remaining > 0:
            bar = progress_bar and sys.stderr.isatty()
            shown = [LogLines(self.config.steps, "train")] if progress_bar and not bar else []
            with interruptible(self.stop):
                self.agent.learn(remaining, [*self.callbacks(), *shown], bar)
                self.checkpoint.finish(self.agent)
        self.folder.flush()
        return self.agent.num_timesteps >= self.config.steps

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of training."""
        return [*self.alongside, self.stop, self.checkpoint]

    def report(self, episodes: int | None = None) -> Evaluation:
        """Evaluate the agent as it is, write ``tradeoff.json`` for ``budget report`` and return the evaluation.

        The episodes are others than those that picked ``best.safetensors``.

        Args:
            episodes: of the evaluation, by default ``eval_episodes``.
        """
        agent, config = self.agent, self.config
        with undisturbed(agent, self.evaluation_env):
            result = evaluate_policy(agent, self.evaluation_env, episodes or config.eval_episodes, REPORT_SEED)
        name, seed = title_of(agent), agent.config.seed
        curve, extras = self.curve(result.summary()["raw_return"])
        point = TradeoffPoint.from_episodes(name, name, seed, result.by_episode(), curve, extras)
        self.comparison([point]).write(self.folder.path)
        return result

    def curve(self, final: float) -> tuple[Curve, dict[str, float]]:
        """Return the learning curve, which ends at ``final``, and extras of a point: the mean over all of training."""
        config = self.config
        evaluations = numbers_in(self.folder.rows("evaluation"), "step", "raw_return")
        trained = min(config.steps, self.agent.num_timesteps)
        extras = {OVER_TRAINING: statistics.fmean(value for _, value in evaluations)} if evaluations else {}
        return curve_to_the_end(evaluations, config.eval_every or 1, trained, final), extras

    def comparison(self, points: Sequence[TradeoffPoint]) -> Comparison:
        """Return what ``budget report`` reads of the run."""
        agent, config = self.agent, self.config
        settings = {"run": dataclasses.asdict(config), "settings": agent.config.to_dict(), **agent.methods_given}
        record = read_provenance(self.folder.path)
        return Comparison(config.env, points, agent.meter.convention, record["command"], record["versions"], settings)

    def close(self) -> None:
        """Close files and environments."""
        self.folder.close()
        self.evaluation_env.close()
        self.agent.env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
