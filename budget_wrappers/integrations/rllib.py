"""RLlib, its new API stack: meter its algorithms, and use them as sub-policies.

A meter lives in one process, so acting and learning have to be in this one::

    config = PPOConfig().env_runners(num_env_runners=0).learners(num_learners=0)
    algo = metered(config.callbacks(on_episode_end=log_compute).environment("wrapped").build_algo())
    algo.train()["env_runners"]["compute"]["return_raw"]
    get_meter("policy").totals  # {"act": …, "learn": …}

The networks of the environment runner's module are watched, and each update of the learner is counted as learning,
forward and backward, its connectors (advantages, say) included.

Four habits of RLlib that matter here:

* It pickles what makes an environment: give wrappers the meter's name, an object cannot go along.
* Text in an ``info`` breaks its connectors; ours are numbers. Its returns have the penalty in them, and ``info`` ends
  with the episode: ``log_compute`` logs both returns.
* A budget is set by ``algo.env_runner.env.unwrapped.call("set_budget", flops)``, from the next episode on.
* After an episode its vector environment asks for one more action, which no step takes: that is in the totals, and no
  episode pays for it.
"""

from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.integrations.attaching import ActingLayers
from budget_wrappers.integrations.extras import library
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.policies import AgentPolicy
from budget_wrappers.wrappers.reading import SUMMARY_KEY

Algorithm = TypeVar("Algorithm")

_METHODS = ("forward_inference", "forward_exploration")


def metered(algo: Algorithm, meter: str | ComputeMeter = "policy") -> Algorithm:
    """Charge what ``algo`` spends, acting and learning, to ``meter``, and return the algorithm.

    It trains to the same numbers as without, and its checkpoints hold nothing of the meter. A local runner for
    evaluation is metered, too. Every update is counted as it runs.

    Args:
        algo: what ``config.build_algo()`` returned, with runners and learner in this process and one environment a
            runner, as wrappers of a single environment need it.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very algorithm that was given, with an attribute ``meter``.

    Raises:
        MissingExtraError: Ray, or what RLlib needs of it, is not installed.
        MeterError: it is metered already, or acts or learns in other processes.
        ConfigError: it is no algorithm of the new API stack, or one of several agents.
        UncountableError: at the first action, when products run outside of the layers of the acting module.
    """
    _require_algorithm(algo)
    if _METERING in vars(algo):
        raise MeterError(f"this {type(algo).__name__} is metered already, by {algo.meter!r}; call unmeter(algo) first")
    _require_this_process(algo)
    account = get_meter(meter) if isinstance(meter, str) else meter
    vars(algo).update({_METERING: _Metering(algo, account), "meter": account})
    return algo


def unmeter(algo: Algorithm) -> Algorithm:
    """Undo ``metered`` and leave nothing behind on ``algo``.

    Raises:
        MeterError: it is not metered.
    """
    if _METERING not in vars(algo):
        raise MeterError(f"this {type(algo).__name__} is not metered; pass what metered() returned")
    vars(algo).pop(_METERING).detach()
    del vars(algo)["meter"]
    return algo


def flops_per_action(algo: Any) -> int:
    """Return the FLOPs of one greedy action on one observation, in the ``matmul`` convention.

    Raises:
        MissingExtraError, ConfigError: as ``metered``; or observations are no array, or the module has a memory.
        UncountableError: the FLOPs of something in its networks cannot be counted.
    """
    agent = _Agent(algo)
    batch = agent.batch(np.zeros(agent.space.shape, agent.space.dtype))
    with evaluating(agent.module):
        return count_flops(agent.module.forward_inference, batch)


def as_sub_policy(algo: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``algo`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Args:
        algo: what ``config.build_algo()`` returned, with a local runner; its actions are brought to the bounds of the
            environment as in training.
        name: unique among its siblings; the algorithm's class when None.
        deterministic: act by inference and the distribution's mode; else by exploration.

    Raises:
        MissingExtraError, ConfigError, UncountableError: as ``flops_per_action``.
    """
    return AgentPolicy(_Agent(algo), flops_per_action(algo), name or type(algo).__name__, deterministic)


def log_compute(*, episode: Any, metrics_logger: Any, **_: Any) -> None:
    """Log the numbers of ``info["compute"]``, means of 100 episodes: ``config.callbacks(on_episode_end=log_compute)``.

    They are in ``algo.train()["env_runners"]["compute"]``; the shares of sub-policies are in dictionaries there.
    """
    for name, value in episode.get_infos(-1).get(SUMMARY_KEY, {}).items():
        for path, number in _numbers((SUMMARY_KEY, name), value):
            metrics_logger.log_value(path, number, window=100)


def _numbers(path: tuple[str, ...], value: Any) -> list[tuple[tuple[str, ...], float]]:
    if isinstance(value, dict):
        return [pair for name, part in value.items() for pair in _numbers((*path, name), part)]
    return [(path, float(value))]


# ---- the meter's hold on an algorithm -------------------------------------------------------------------------------

_METERING = "_budget_metering"


class _Metering:
    """What is attached to one algorithm: attributes of its module and its learner, whose classes are in checkpoints."""

    def __init__(self, algo: Any, meter: ComputeMeter) -> None:
        modules = [runner.module for runner in _runners(algo)]
        self._learner = algo.learner_group._learner
        self._layers = [ActingLayers(meter, dict(module.named_children())) for module in modules]
        self._modules = modules
        for module, layers in zip(modules, self._layers, strict=True):
            for name in _METHODS:
                setattr(module, name, _acting(layers, getattr(module, name)))
        update = self._learner.update

        def counted(*args: Any, **kwargs: Any) -> Any:
            with meter.phase("learn"):
                return update(*args, **kwargs)

        self._learner.update = counted

    def detach(self) -> None:
        """Leave nothing on the algorithm's parts."""
        for layers in self._layers:
            layers.detach()
        for module in self._modules:
            for name in _METHODS:
                vars(module).pop(name)
        vars(self._learner).pop("update")


def _acting(layers: ActingLayers, forward: Any) -> Any:
    """Return ``forward``, charged to acting."""

    def counted(batch: Any, **kwargs: Any) -> Any:
        return layers.run(forward, batch, **kwargs)

    return counted


def _require_algorithm(algo: Any) -> None:
    base = library("ray.rllib.algorithms.algorithm", "ray").Algorithm
    new = isinstance(algo, base) and algo.config.enable_env_runner_and_connector_v2
    if not new or not algo.config.enable_rl_module_and_learner:
        raise ConfigError(
            f"got a {type(algo).__name__}; expected an algorithm of RLlib's new API stack, PPOConfig()….build_algo(). "
            "Count others by hand where they act, get_meter('policy').watch(module)"
        )
    if algo.config.is_multi_agent:
        raise ConfigError(
            f"this {type(algo).__name__} has several agents; expected a single one, as its module's networks are "
            "watched under one meter. Watch each by hand, get_meter(agent).watch(algo.get_module(agent))"
        )


def _require_this_process(algo: Any) -> None:
    """Check that a meter of this process can see acting and learning."""
    evaluation = algo.eval_env_runner_group
    asked = {
        "num_env_runners": algo.env_runner_group.num_remote_env_runners(),
        "evaluation_num_env_runners": evaluation.num_remote_env_runners() if evaluation else 0,
        "num_learners": 0 if algo.learner_group.is_local else algo.config.num_learners,
    }
    away = [f"{name}={number}" for name, number in asked.items() if number]
    mode = getattr(algo.config.gym_env_vectorize_mode, "value", algo.config.gym_env_vectorize_mode)
    if str(mode).lower() == "async":
        away.append("gym_env_vectorize_mode='async'")
    if away:
        raise MeterError(
            f"this {type(algo).__name__} has {', '.join(away)}: its networks or environments live in other processes, "
            "and a meter in this one would see nothing. Configure env_runners(num_env_runners=0), "
            "learners(num_learners=0) and evaluation(evaluation_num_env_runners=0), or train unmetered and evaluate "
            "as_sub_policy(algo) in this process"
        )


def _runners(algo: Any) -> list[Any]:
    groups = [algo.env_runner_group, algo.eval_env_runner_group]
    found = [group.local_env_runner for group in groups if group is not None]
    return [runner for runner in found if runner is not None and runner.module is not None]


# ---- single observations and actions --------------------------------------------------------------------------------


class _Agent:
    """An algorithm that acts on single observations.

    Attributes:
        module: that acts.
        space: of observations.
    """

    def __init__(self, algo: Any) -> None:
        _require_algorithm(algo)
        runners = _runners(algo)
        self._algo, self.module = algo, runners[0].module if runners else algo.get_module()
        self.space = self.module.observation_space
        own = algo.config._env_to_module_connector is not None or algo.config._module_to_env_connector is not None
        if not isinstance(self.space, gym.spaces.Box) or self.module.is_stateful() or own:
            raise ConfigError(
                f"{type(algo).__name__} acts on {self.space}: expected one array as observation, a module without a "
                "memory, and RLlib's own connectors. Adapt it by hand: FunctionPolicy(function, flops=…)"
            )

    def batch(self, observation: Any) -> dict[str, torch.Tensor]:
        """Return ``observation`` as a batch of one."""
        parameter = next(self.module.parameters())
        return {"obs": torch.as_tensor(np.asarray(observation)[None]).to(parameter.device, torch.float32)}

    @torch.no_grad()
    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, None]:
        """Return the action for ``observation``, within the environment's bounds."""
        module, batch = self.module, self.batch(observation)
        if deterministic:
            out, kind = module.forward_inference(batch), module.get_inference_action_dist_cls
        else:
            steps = self._algo.env_runner.num_env_steps_sampled_lifetime
            out, kind = module.forward_exploration(batch, t=steps), module.get_exploration_action_dist_cls
        if "actions" not in out:
            distribution = kind().from_logits(out["action_dist_inputs"])
            out = {"actions": (distribution.to_deterministic() if deterministic else distribution).sample()}
        return self._in_bounds(out["actions"][0].cpu().numpy()), None

    def _in_bounds(self, action: np.ndarray) -> Any:
        spaces, config = library("ray.rllib.utils.spaces.space_utils", "ray"), self._algo.config
        if isinstance(self.module.action_space, gym.spaces.Discrete):
            return action[()]
        struct = spaces.get_base_struct_from_space(self.module.action_space)
        if config.normalize_actions:
            return spaces.unsquash_action(action, struct)
        return spaces.clip_action(action, struct) if config.clip_actions else action


__all__ = ["as_sub_policy", "flops_per_action", "log_compute", "metered", "unmeter"]
