"""skrl 2 (torch): meter its agents, and use them as sub-policies.

One line meters an agent, and nothing of it has to change::

    agent = metered(SAC(models=models, memory=memory, cfg=cfg, ...))
    SequentialTrainer(env=env, agents=agent, cfg=cfg).train()
    get_meter("policy").totals  # {"act": …, "learn": …}

A model of skrl is told its role whenever it runs: as ``"policy"`` or ``"q_network"`` it acts, and its layers are
watched. Any other role is learning, the values that PPO and A2C estimate while they collect among them, and so is each
``update``, forward and backward.

Habits of skrl that matter here:

* It stores rewards as float32, where 5000 − 1e-4 == 5000: a penalty that is tiny beside the reward is lost.
* Of a vector environment it stores the transition of the reset step, too, with ``autoreset_mode`` ``NEXT_STEP``; that
  step's action is charged to nobody. Wrappers of a single environment want a single one, ``wrap_env(env)``.
* The ``reset`` of ``wrap_env(env)`` takes no options. Through it, ``env.get_wrapper_attr("set_budget")(flops)`` sets a
  budget, however deep in the stack the limit is.
"""

import copy
import functools
from typing import Any, TypeVar

import torch
from torch import nn

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.attaching import (
    ActingLayers,
    attach,
    detach,
    refuse_attached,
    require_attached,
)
from budget_wrappers.integrations.extras import library
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.quiet import SILENT, counting
from budget_wrappers.policies import AgentPolicy

Agent = TypeVar("Agent")

_ACTING = ("policy", "q_network")
"""Roles in which a model acts."""


def metered(agent: Agent, meter: str | ComputeMeter = "policy") -> Agent:
    """Charge what ``agent`` spends, acting and learning, to ``meter``, and return the agent.

    It trains to the same numbers as without, and its checkpoints are the same. Each update is counted as it runs, at
    several microseconds an operator, as a model of skrl is written by its user and may branch on what it sees.

    Args:
        agent: of ``skrl.agents.torch``, or a subclass of one.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very agent that was given, with an attribute ``meter``. Its class, and those of the models that run while it
        collects, are subclasses of what they were.

    Raises:
        MeterError: it, or one of its models, is metered already.
        ConfigError: it is no agent of skrl, or has neither a policy nor a Q-network.
        MissingExtraError: skrl is not installed.
        UncountableError: at the first action, when products run outside of the model's layers.
    """
    role, model = _acting(agent)
    account = get_meter(meter) if isinstance(meter, str) else meter
    value = agent.models.get("value")
    collecting = [model] if value is None or value is model else [model, value]
    for target in (agent, *collecting):
        refuse_attached(target)
    update, layers = type(agent).update, ActingLayers(account, {role: model})

    def counted_update(self: Any, *args: Any, **kwargs: Any) -> None:
        with account.phase("learn"):
            update(self, *args, **kwargs)

    attach(agent, account, {"update": counted_update, "_layers": layers, "_collecting": collecting})
    for target in collecting:
        attach(target, account, {"act": _counted_act(type(target).act, account, layers)})
    return agent


def _counted_act(act: Any, meter: ComputeMeter, layers: ActingLayers) -> Any:
    """Return a method that runs a model's ``act`` and charges it by the role that it is given."""

    def counted_act(self: Any, inputs: Any, role: str = "") -> Any:
        bound = act.__get__(self)
        if role in _ACTING:
            return layers.run(bound, inputs, role=role)
        if meter.mode == SILENT or counting():  # in an update, paused, or run for its FLOPs
            return bound(inputs, role=role)
        with meter.phase("learn"):
            return bound(inputs, role=role)

    return counted_act


def unmeter(agent: Agent) -> Agent:
    """Undo ``metered`` and leave nothing behind on ``agent`` and its models.

    Raises:
        MeterError: it is not metered.
    """
    require_attached(agent)
    agent._layers.detach()
    for target in (*agent._collecting, agent):
        detach(target)
    return agent


def flops_per_action(agent: Any) -> int:
    """Return the FLOPs of the acting model on one observation, in the ``matmul`` convention.

    Raises:
        ConfigError: it is no agent of skrl, has nothing that acts, or acts by a memory.
        UncountableError: the FLOPs of something in the model cannot be counted.
    """
    role, model = _acting(agent)
    example = copy.deepcopy(agent.observation_space).sample()  # the space's own generator is left alone
    inputs = _Predicting(agent).inputs(example)
    with evaluating(model):
        return count_flops(functools.partial(model.act, inputs, role=role))


def as_sub_policy(agent: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``agent`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Observations are preprocessed as they were in training.

    Args:
        agent: of ``skrl.agents.torch``.
        name: unique among its siblings; the agent's class when None.
        deterministic: act by the mean, or by what is likeliest; else by a sample. A Q-network acts greedily, and a
            deterministic model as it is, either way: their exploration is the agent's.

    Raises:
        ConfigError, UncountableError: as ``flops_per_action``.
    """
    return AgentPolicy(_Predicting(agent), flops_per_action(agent), name or type(agent).__name__, deterministic)


class _Predicting:
    """An agent of skrl that acts on single observations."""

    def __init__(self, agent: Any) -> None:
        self._agent, (self._role, self._model) = agent, _acting(agent)
        if self._model.get_specification().get("rnn"):
            raise ConfigError(
                f"{type(self._model).__name__} has recurrent layers; expected a model without memory, as a sub-policy "
                "is given one observation. Adapt it by FunctionPolicy(function, flops=…), which keeps the memory"
            )
        self._spaces = library("skrl.utils.spaces.torch", "skrl")

    def inputs(self, observation: Any) -> dict[str, Any]:
        """Return ``observation`` as a model gets it, in a batch of one."""
        spaces, agent = self._spaces, self._agent
        tensors = spaces.tensorize_space(agent.observation_space, observation, device=agent.device)
        return {
            "observations": agent._observation_preprocessor(spaces.flatten_tensorized_space(tensors)),
            "states": None,
        }

    @torch.no_grad()
    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, None]:
        """Return the action for ``observation``."""
        with evaluating(self._model):
            action, outputs = self._model.act(self.inputs(observation), role=self._role)
        if self._role == "q_network":
            action = action.argmax(-1, keepdim=True)
        elif deterministic and "net_output" in outputs:
            action = outputs["net_output"].argmax(-1, keepdim=True)
        elif deterministic:
            action = outputs.get("mean_actions", action)
        space, spaces = self._agent.action_space, self._spaces
        shaped = spaces.unflatten_tensorized_space(space, action)
        return spaces.untensorize_space(space, shaped, squeeze_batch_dimension=True), None


def _acting(agent: Any) -> tuple[str, nn.Module]:
    """Return the role and the model that act."""
    base = library("skrl.agents.torch", "skrl").Agent
    models = agent.models if isinstance(agent, base) else {}
    for role in _ACTING:
        if isinstance(models.get(role), nn.Module):
            return role, models[role]
    raise ConfigError(
        f"{type(agent).__name__} with the models {sorted(models)}: expected an agent of skrl.agents.torch with a model "
        'called "policy" or "q_network"; watch what acts by hand, get_meter("policy").watch(module), and put '
        'meter.phase("learn") around its updates'
    )


__all__ = ["as_sub_policy", "flops_per_action", "metered", "unmeter"]
