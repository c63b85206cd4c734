"""Tianshou 2: meter its algorithms, and use them as sub-policies.

One line meters an algorithm, and nothing of it has to change::

    algorithm = metered(DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3)))
    algorithm.run_training(OffPolicyTrainerParams(...))
    get_meter("policy").totals  # {"act": …, "learn": …}

The layers of the algorithm's ``policy`` are watched, and each ``update`` is counted as learning, forward and backward.
What a test collector acts is acting, too: wrap its environments as those of training are, or the next step of training
pays for it.

Habits of Tianshou that matter here:

* It collects with gradients on. A meter that knows no better takes that for learning; a metered policy acts in the
  phase "act".
* Its workers reach ``env.unwrapped`` only, so ``get_env_attr`` and ``set_env_attr`` see no wrapper. Set a budget by
  ``collector.reset_env(gym_reset_kwargs={"options": {"budget": flops}})``: it holds for the resets that follow, too.
  And ``collect(random=True)`` draws actions of the innermost environment: over ``SubPolicyAction`` explore by
  ``eps_training``.
* The account of an episode is in its last step: ``buffer.info.compute.return_raw[buffer.done]``. Wrappers of a single
  environment want a vector of one, ``DummyVectorEnv([make])``; in a ``SubprocVectorEnv`` no meter can follow them.
"""

import copy
import inspect
from collections.abc import Hashable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.attaching import (
    ActingLayers,
    attach,
    detach,
    refuse_attached,
    require_attached,
    shapes_decide,
)
from budget_wrappers.integrations.extras import library
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.policies import AgentPolicy

Algorithm = TypeVar("Algorithm")


def metered(algorithm: Algorithm, meter: str | ComputeMeter = "policy") -> Algorithm:
    """Charge what ``algorithm`` spends, acting and learning, to ``meter``, and return the algorithm.

    It trains to the same numbers as without. Its copies, pickles and state are those of an algorithm that is not
    metered.

    Args:
        algorithm: of ``tianshou.algorithm``, or a subclass of one. Updates of DQN, DDPG, TD3, SAC, REINFORCE, A2C and
            PPO on layers of Tianshou and torch are counted once per kind of update, all others each time.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very algorithm that was given, with an attribute ``meter``. Its class, and its policy's, is a subclass of
        what it was.

    Raises:
        MeterError: it, or its policy, is metered already.
        ConfigError: it is no algorithm of Tianshou, or its policy has neither an actor nor a model.
        MissingExtraError: Tianshou is not installed.
        UncountableError: at the first action, when products run outside of the policy's layers.
    """
    policy = _policy_of(algorithm, "Algorithm")
    account = get_meter(meter) if isinstance(meter, str) else meter
    update, forward = type(algorithm).update, type(policy).forward
    signature, token = inspect.signature(update), object()  # part of every key
    repeats = type(algorithm).__module__ in _SHAPES_DECIDE and shapes_decide(algorithm, "tianshou")
    refuse_attached(algorithm)
    refuse_attached(policy)
    layers = ActingLayers(account, dict(policy.named_children()))

    def counted_update(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        key = _kind_of_update(self, given.arguments) if repeats else None
        with account.phase("learn", key=None if key is None else (token, key)):
            return update(self, *args, **kwargs)

    def counted_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return layers.run(forward.__get__(self), *args, **kwargs)

    attach(algorithm, account, {"update": counted_update, "_layers": layers})
    attach(policy, account, {"forward": counted_forward})
    return algorithm


def unmeter(algorithm: Algorithm) -> Algorithm:
    """Undo ``metered`` and leave nothing behind on ``algorithm`` and its policy.

    Raises:
        MeterError: it is not metered.
    """
    require_attached(algorithm)
    algorithm._layers.detach()
    detach(algorithm.policy)
    detach(algorithm)
    return algorithm


def flops_per_action(algorithm: Any) -> int:
    """Return the FLOPs of the policy's forward on one observation, in the ``matmul`` convention.

    Args:
        algorithm: or policy, with an ``observation_space``.

    Raises:
        ConfigError: it is of neither kind, or has no observation space.
        UncountableError: the FLOPs of something in the policy cannot be counted.
    """
    policy = _policy_of(algorithm, "Policy")
    if policy.observation_space is None:
        raise ConfigError(
            f"this {type(policy).__name__} has observation_space=None; expected a space, to count one action. Set "
            "policy.observation_space = env.observation_space"
        )
    batch = _batch_of(copy.deepcopy(policy.observation_space).sample())  # the space's own generator is left alone
    with evaluating(policy):
        return count_flops(lambda: policy(batch))


def as_sub_policy(algorithm: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``algorithm`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Args:
        algorithm: of Tianshou, or a policy.
        name: unique among its siblings; the class of ``algorithm`` when None.
        deterministic: act by the mode of the policy's distribution and without noise; else as in training, its
            exploration noise included.

    Raises:
        ConfigError, UncountableError: as ``flops_per_action``.
    """
    agent = _Predicting(_policy_of(algorithm, "Policy"))
    return AgentPolicy(agent, flops_per_action(algorithm), name or type(algorithm).__name__, deterministic)


class _Predicting:
    """A policy of Tianshou that acts on single observations."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    @torch.no_grad()
    def predict(self, observation: Any, state: Any = None, deterministic: bool = True) -> tuple[Any, Any]:
        """Return the action for ``observation``, in the environment's bounds, and the state of a recurrent policy.

        Args:
            observation: one, as the environment gives it.
            state: what this returned before in the same episode, None at its start.
            deterministic: see ``as_sub_policy``.
        """
        policy, batch = self._policy, _batch_of(observation)
        before = {name: vars(policy)[name] for name in _MODES if name in vars(policy)}
        wanted = {"deterministic_eval": deterministic, "is_within_training_step": not deterministic}
        vars(policy).update({name: value for name, value in wanted.items() if name in before})
        try:
            with evaluating(policy):
                acted = policy(batch, state)
            action = acted.act
            action = action if isinstance(action, np.ndarray) else action.cpu().numpy()
            if not deterministic:
                action = policy.add_exploration_noise(action, batch)
        finally:
            vars(policy).update(before)
        return policy.map_action(action)[0], acted.get("state")


# What decides whether a policy samples; those that have no deterministic_eval always act in one way.
_MODES = ("deterministic_eval", "is_within_training_step")


def _batch_of(observation: Any) -> Any:
    """Return one observation as a batch of one, as a collector makes it."""
    from tianshou.data import Batch

    rows = Batch([observation]) if isinstance(observation, dict) else np.asarray(observation)[None]
    return Batch(obs=rows, info=Batch())


# Modules of algorithms whose updates cost what the sizes of their batches say. TRPO's search ends where the data tell
# it to, for one.
_SHAPES_DECIDE = {
    f"tianshou.algorithm.modelfree.{name}"
    for name in ("a2c", "c51", "ddpg", "discrete_sac", "dqn", "ppo", "qrdqn", "reinforce", "sac", "td3")
}


def _kind_of_update(algorithm: Any, arguments: dict[str, Any]) -> Hashable | None:
    """Return what the FLOPs of this call of ``update`` follow from, or None when it has to be counted."""
    buffer, sample_size = arguments["buffer"], arguments.get("sample_size")
    if buffer is None:
        return None
    rows = sample_size or len(buffer)  # neither a size nor 0: all of it, as on-policy
    # TD3 updates its actor with every update_actor_freq-th critic.
    delay = getattr(algorithm, "update_actor_freq", 1)
    return rows, arguments.get("batch_size"), arguments.get("repeat"), getattr(algorithm, "_cnt", 0) % delay == 0


def _policy_of(candidate: Any, kind: str) -> Any:
    """Return the policy of an algorithm, or a policy itself where one of ``kind`` "Policy" will do."""
    base = library("tianshou.algorithm.algorithm_base", "tianshou")
    policy = candidate.policy if isinstance(candidate, base.Algorithm) else candidate
    right = isinstance(candidate, base.Algorithm) or (kind == "Policy" and isinstance(candidate, base.Policy))
    acting = [getattr(policy, name, None) for name in ("actor", "model")]
    if not right or not any(isinstance(module, nn.Module) for module in acting):
        raise ConfigError(
            f"{type(candidate).__name__} with the policy {type(policy).__name__}: expected an algorithm of Tianshou 2 "
            "whose policy has an actor or a model (one a time of a MultiAgentPolicy); watch what acts by hand, "
            'get_meter("policy").watch(module), and put meter.phase("learn") around its updates'
        )
    return policy


__all__ = ["as_sub_policy", "flops_per_action", "metered", "unmeter"]
