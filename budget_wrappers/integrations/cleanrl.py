"""CleanRL, and any single file in its style: plain torch modules, and a loop of one's own.

Nothing of CleanRL is imported, and acting needs no adapter: the meter's own calls are the shortest there is. Three
lines meter a script::

    meter.watch(actor, "actor", static=True)    # once; static: shapes decide what its forward costs
    ...
    with meter.phase("act"):                    # such scripts act with gradients on, which looks like learning
        actions, _, _ = actor.get_action(torch.Tensor(obs))
    ...
    with meter.phase("learn", key="critic"):    # or @learns(meter) above a function that updates
        ...

Watch what is **called**. A SAC actor's ``get_action`` calls ``self(x)``: a forward of the actor. A PPO agent's
``get_action_and_value`` calls ``self.actor(x)`` and ``self.critic(x)``, and never the agent: watch ``agent.actor``; as
that loop acts under ``torch.no_grad()``, it needs no phase.

What remains is here: ``learns`` for a function that updates, and ``as_sub_policy``.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.policies import ModulePolicy

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def learns(
    meter: str | ComputeMeter = "policy", key: Callable[Arguments, Hashable] | None = None
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorate a function that updates: each call is charged to learning, forward and backward.

    Args:
        meter: name or object.
        key: called with the function's arguments; what it returns has to tell apart whatever changes the FLOPs of an
            update, such as its batch size and whether it is the actor's turn. The first call with each key is counted,
            and the others cost no time. Every call is counted when None.

    Raises:
        UncountableError: from the function, for an operator that nothing is known about.

    Example:
        >>> import torch
        >>> from budget_wrappers.metering import get_meter
        >>> net = torch.nn.Linear(4, 2)
        >>> @learns("docs.cleanrl", key=len)
        ... def update(observations):
        ...     net(observations).sum().backward()
        >>> update(torch.zeros(8, 4))  # forward and the gradient of the weights: 2 · 8·(2·4·2)
        >>> get_meter("docs.cleanrl").totals["learn"]
        256
    """
    account = get_meter(meter) if isinstance(meter, str) else meter

    def decorate(update: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        token = object()  # two functions may have equal keys

        @functools.wraps(update)
        def counted(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with account.phase("learn", key=None if key is None else (token, key(*args, **kwargs))):
                return update(*args, **kwargs)

        return counted

    return decorate


def as_sub_policy(
    agent: nn.Module, name: str | None = None, deterministic: bool = True, *, example: np.ndarray
) -> ModulePolicy:
    """Return the network of a CleanRL script as a sub-policy, its FLOPs counted; its critics are no part of it.

    ================  ====================================  ======================================
    of the script     known by                              acts, deterministic or not
    ================  ====================================  ======================================
    SAC               ``get_action`` and ``action_scale``   by its squashed mean, or a sample
    PPO, discrete     ``actor``, beside critics only        by what is likeliest, or a sample
    PPO, continuous   ``actor_mean``, beside critics only   by its mean, or a sample
    DDPG, TD3         ``action_scale``                      as it is, either way
    DQN               ``network`` only                      greedily, either way
    ================  ====================================  ======================================

    Scripts with a trunk that actor and critic share, or that return something else (SAC of discrete actions, C51), are
    refused: adapt them by ``ModulePolicy``, with what they do to an observation first.

    Args:
        agent: the module that such a script calls its actor, agent or network.
        name: unique among its siblings; the module's class when None.
        deterministic: see above; DQN, DDPG and TD3 have their exploration in the loop, and not in the module.
        example: one observation, to count the FLOPs of one call.

    Raises:
        ConfigError: it is none of these.
        UncountableError: the FLOPs of something in it cannot be counted.
    """
    act = _act_of(agent) if isinstance(agent, nn.Module) else None
    if act is None:
        raise ConfigError(
            f"{type(agent).__name__} has {', '.join(_public_parts(agent)) or 'no parts'}: expected the module that "
            "acts in CleanRL's SAC (get_action and action_scale), PPO (actor or actor_mean, beside critics only), DDPG "
            "or TD3 (action_scale), or DQN (network only); adapt any other by ModulePolicy(module, act, "
            "example=observation), one with a shared trunk by act=lambda agent, x: agent.actor(agent.network(x)).argmax"
            "(-1), with what the script does to x"
        )
    return ModulePolicy(agent, lambda module, batch: act(module, batch, deterministic), example, name)


Act = Callable[[Any, Tensor, bool], Tensor]


def _act_of(agent: nn.Module) -> Act | None:
    """Return how the module of a known script acts: one attribute alone may belong to another script."""
    if hasattr(agent, "get_action"):  # that of discrete SAC and of C51 returns other things
        return _squashed if hasattr(agent, "action_scale") else None
    whole = getattr(agent, "_orig_mod", agent)  # of a compiled module
    parts = tuple(name for name, _ in whole.named_children() if not name.startswith("critic"))
    if parts in _BY_PARTS:
        return _BY_PARTS[parts]
    return _as_it_is if hasattr(agent, "action_scale") and not {"actor", "actor_mean"} & {*parts} else None


def _public_parts(agent: Any) -> list[str]:
    parts = [name for name, _ in agent.named_children()] if isinstance(agent, nn.Module) else []
    return parts + [name for name in ("get_action", "action_scale") if hasattr(agent, name)]


def _squashed(agent: Any, batch: Tensor, deterministic: bool) -> Tensor:
    action, _, mean = agent.get_action(batch)
    return mean if deterministic else action


def _categorical(agent: Any, batch: Tensor, deterministic: bool) -> Tensor:
    logits = agent.actor(batch)
    return logits.argmax(-1) if deterministic else Categorical(logits=logits).sample()


def _gaussian(agent: Any, batch: Tensor, deterministic: bool) -> Tensor:
    mean = agent.actor_mean(batch)
    return mean if deterministic else Normal(mean, agent.actor_logstd.expand_as(mean).exp()).sample()


def _as_it_is(agent: Any, batch: Tensor, deterministic: bool) -> Tensor:
    return agent(batch)


def _greedy(agent: Any, batch: Tensor, deterministic: bool) -> Tensor:
    return agent(batch).argmax(-1)


_BY_PARTS: dict[tuple[str, ...], Act] = {("actor",): _categorical, ("actor_mean",): _gaussian, ("network",): _greedy}


__all__ = ["as_sub_policy", "learns"]
