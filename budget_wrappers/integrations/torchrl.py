"""TorchRL: meter its policy modules, and put what acting costs into its tensordicts.

The training loop is the user's, so there are three lines to add to it::

    env = wrap_env(RecordComputeStatistics(gym.make("CartPole-v1")))  # "cost" is in every tensordict
    policy = metered(QValueActor(net, in_keys=["observation"], spec=env.action_spec))
    ...
    with learning(policy, key="dqn"):  # around loss and backward
        loss_module(batch)["loss"].backward()

A forward of the policy is acting wherever it runs, except in ``learning``: ``rollout`` records gradients, so they tell
nothing here. A loss runs the very networks that act, with other weights, so one that is left outside of ``learning``
is charged to acting; the wrappers then raise, as it was a batch.

Three habits of TorchRL that matter here:

* ``GymWrapper`` drops ``info``; ``wrap_env`` reads the numbers of ours, at reset as well.
* A budget is set by ``env.reset(options={"budget": flops})``, through transforms as well.
* A collector runs the policy once before it starts, to see what it writes: charged like any other forward. Collectors
  of several processes act in copies, which charge nothing; a meter lives where the policy is.
"""

import functools
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.attaching import ActingLayers, attach, detach, refuse_attached, require_attached
from budget_wrappers.integrations.extras import library
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.policies import AgentPolicy
from budget_wrappers.wrappers.reading import SUMMARY_KEY

Policy = TypeVar("Policy", bound=nn.Module)

SUMMARY = ("flops", "flops_per_step", "steps", "return_raw", "return_penalised")
"""What ``wrap_env`` puts under ``("compute", …)`` at the end of an episode; 0 before."""


def wrap_env(env: gym.Env, keys: tuple[str, ...] = ("cost",), **settings: Any) -> Any:
    """Return ``env`` as a TorchRL environment whose tensordicts hold what our wrappers say.

    ``"cost"`` is in FLOPs, float64 in the shape of the reward, and 0 at reset; ``("compute", "return_raw")``,
    ``("compute", "return_penalised")`` and the other numbers of ``SUMMARY`` are there at the end of an episode and 0
    before.

    Args:
        env: a single environment, in ``RecordComputeStatistics`` or in any other wrapper that writes ``keys``.
        keys: of ``info``, numbers; 0 where an ``info`` lacks one (``"duration"`` and ``"option"`` of
            ``SubPolicyAction``, say).
        settings: of TorchRL's ``GymWrapper``.

    Raises:
        MissingExtraError: TorchRL is not installed.
    """
    envs = library("torchrl.envs", "torchrl")
    return envs.GymWrapper(env, **settings).set_info_dict_reader(_info_reader()(keys))


def metered(policy: Policy, meter: str | ComputeMeter = "policy") -> Policy:
    """Charge what ``policy`` spends when it acts, and in ``learning``, to ``meter``, and return the policy.

    It computes the same as without. Its copies, pickles and state are those of a policy that is not metered.

    Args:
        policy: that the environment or the collector is given: a ``TensorDictModule``, or a sequence of them.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very policy that was given, with an attribute ``meter``. Its class is a subclass of what it was.

    Raises:
        MissingExtraError: TorchRL is not installed.
        MeterError: it is metered already.
        ConfigError: it is no ``TensorDictModule``.
        UncountableError: at the first action, when products run outside of the policy's layers.
    """
    library("torchrl", "torchrl")
    base = library("tensordict.nn", "torchrl").TensorDictModuleBase
    loss = library("torchrl.objectives", "torchrl").LossModule
    if not isinstance(policy, base) or isinstance(policy, loss):
        raise ConfigError(
            f"metered() got a {type(policy).__name__}; expected the TensorDictModule that acts (QValueActor, "
            "ProbabilisticActor, a TensorDictSequential): wrap a network, TensorDictModule(net, in_keys=[…], "
            "out_keys=[…]), and pass neither a loss nor a collector"
        )
    refuse_attached(policy)
    account = get_meter(meter) if isinstance(meter, str) else meter
    forward, layers = type(policy).forward, ActingLayers(account, {"policy": policy})

    def counted_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return layers.run(forward.__get__(self), *args, **kwargs)

    # The token is part of every key of learning, so that no two policies share one.
    attach(policy, account, {"forward": counted_forward, "_layers": layers, "_token": object()})
    return policy


def unmeter(policy: Policy) -> Policy:
    """Undo ``metered`` and leave nothing behind on ``policy``.

    Raises:
        MeterError: it is not metered.
    """
    require_attached(policy)
    policy._layers.detach()
    detach(policy)
    return policy


def learning(policy: nn.Module, key: str | None = None) -> AbstractContextManager[None]:
    """Charge everything inside to learning: losses, target networks and backward passes.

    Args:
        policy: a metered one, whose meter is charged.
        key: counts the first time with each key and adds the same number from then on; it has to tell apart whatever
            changes the FLOPs (the kind of update, the size of the batch). ``None`` counts every time.

    Raises:
        MeterError: ``policy`` is not metered.
    """
    require_attached(policy)
    return policy.meter.phase("learn", key=None if key is None else (policy._token, key))


def flops_per_action(policy: nn.Module, env: Any) -> int:
    """Return the FLOPs of ``policy`` on one observation of ``env``, in the ``matmul`` convention.

    Raises:
        UncountableError: the FLOPs of something in it cannot be counted.
    """
    with evaluating(policy):
        return count_flops(policy, env.fake_tensordict())


def as_sub_policy(policy: nn.Module, env: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``policy`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Args:
        policy: a ``TensorDictModule``.
        env: the TorchRL environment that it acts in: it says how an observation becomes tensors, and an action numpy.
            Transforms of its observations and actions are applied, as if every step were the first after a reset.
        name: unique among its siblings; the policy's class when None.
        deterministic: whether exploration is off.

    Raises:
        MissingExtraError: TorchRL is not installed.
    """
    library("torchrl", "torchrl")
    return AgentPolicy(_Agent(policy, env), flops_per_action(policy, env), name or type(policy).__name__, deterministic)


# ---- observations, actions and infos --------------------------------------------------------------------------------


class _Agent:
    """A policy and its environment as in Stable-Baselines3."""

    def __init__(self, policy: nn.Module, env: Any) -> None:
        self._policy, self._env = policy, env
        self._base = getattr(env, "base_env", env)  # without transforms

    @torch.no_grad()
    def predict(self, observation: Any, state: Any = None, deterministic: bool = True) -> tuple[Any, Any]:
        """Return the action for ``observation`` as Gymnasium's environment gave it, and what a recurrent policy keeps.

        Args:
            observation: one.
            state: what this returned before in the same episode, None at its start.
            deterministic: whether exploration is off.
        """
        utils = library("torchrl.envs.utils", "torchrl")
        kinds = utils.ExplorationType
        given = self._tensors(observation)
        if state is not None:
            given.update(state)
            if "is_init" in set(given.keys()):  # where it is true a recurrent layer forgets
                given.set("is_init", torch.zeros_like(given["is_init"]))
        with (
            utils.set_exploration_type(kinds.DETERMINISTIC if deterministic else kinds.RANDOM),
            evaluating(self._policy),
        ):
            acted = self._policy(given)
        reads, wrote = set(self._policy.in_keys), acted.get("next", {})
        state = {key: wrote[key] for key in reads & set(wrote.keys())} or None
        if self._base is not self._env:
            acted = self._env.transform.inv(acted)
        return self._base.read_action(acted[self._base.action_key]), state

    def _tensors(self, observation: Any) -> Any:
        tensors = library("tensordict", "torchrl").TensorDict(self._base.read_obs(observation), [])
        if self._base is self._env:
            return tensors
        return self._env.transform._reset(tensors.empty(), tensors)  # calling it is for stored trajectories


@functools.cache
def _info_reader() -> type:
    """Return our reader of infos, whose base class is TorchRL's."""
    data = library("torchrl.data", "torchrl")
    gym_like = library("torchrl.envs.gym_like", "torchrl")

    class InfoReader(gym_like.BaseInfoDictReader):
        def __init__(self, keys: tuple[str, ...]) -> None:
            self._keys = keys

        @property
        def info_spec(self) -> Any:
            number = data.Unbounded((1,), dtype=torch.float64)
            summary = data.Composite({name: number.clone() for name in SUMMARY})
            return data.Composite({**{key: number.clone() for key in self._keys}, SUMMARY_KEY: summary})

        def __call__(self, info_dict: dict[str, Any], tensordict: Any) -> Any:
            for key in self._keys:
                tensordict.set(key, _number(info_dict.get(key, 0.0)))
            report = info_dict.get(SUMMARY_KEY, {})
            for name in SUMMARY:
                tensordict.set((SUMMARY_KEY, name), _number(report.get(name, 0.0)))
            return tensordict

    return InfoReader


def _number(value: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(value, np.float64)).reshape(1)


__all__ = ["as_sub_policy", "flops_per_action", "learning", "metered", "unmeter", "wrap_env"]
