"""The networks of a Stable-Baselines3 model whose units or weights can be pruned, and where it keeps their widths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.extras import library
from budget_wrappers.integrations.sb3_acting import require_torch
from budget_wrappers.modules.unit_groups import UnitGroup, unit_groups

KINDS = ("SAC", "TD3", "DQN", "PPO", "A2C")
"""Algorithms that are known; DDPG is a TD3."""


class _Heads(nn.Module):
    """A network and the layers that read what it says, without what is made of their outputs.

    Args:
        trunk: the network.
        heads: the layers.
    """

    def __init__(self, trunk: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what each head says."""
        hidden = self.trunk(x)
        return [head(hidden) for head in self.heads]


class _Twins(nn.Module):
    """Networks that are given the same input.

    Args:
        networks: critics, of the same widths.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what each network says."""
        return [network(x) for network in self.networks]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One network of a model.

    Attributes:
        name: ``"actor"`` for what acts, ``"critic"`` for what values.
        module: what is counted, and has units.
        targets: that follow it.
        optimizer: that steps it.
        hidden: its hidden layers; of critics those of each, one after another.
        alike: numbers of hidden layers that have to keep as many units.
        valued: networks of values through which the actor's loss is differentiated.
    """

    name: str
    module: nn.Module
    targets: tuple[nn.Module, ...]
    optimizer: torch.optim.Optimizer
    hidden: tuple[nn.Linear, ...]
    alike: tuple[tuple[int, ...], ...] = ()
    valued: tuple[nn.Module, ...] = ()

    def groups(self, model: Any) -> list[UnitGroup]:
        """Return the units of its hidden layers.

        Raises:
            ConfigError: no hidden layer, or layers between which something is not done unit by unit.
        """
        if not self.hidden:
            raise ConfigError(
                f"{type(model).__name__} with net_arch={model.policy.net_arch!r}: expected a hidden layer in the "
                f"{self.name}, whose units can be pruned"
            )
        groups = unit_groups(self.module, torch.zeros(1, self.hidden[0].in_features, device=model.device))
        if [group.maker for group in groups] != [*self.hidden] or any(group.norms for group in groups):
            raise ConfigError(
                f"the {self.name} of {type(model).__name__} with activation_fn="
                f"{getattr(model.policy.activation_fn, '__name__', model.policy.activation_fn)} and net_arch="
                f"{model.policy.net_arch!r}: expected linear layers, and between them nothing but an activation of "
                "each unit by itself, such as nn.ReLU or nn.Tanh; other networks are pruned by UnitPruning"
            )
        return groups


def algorithm_of(model: Any) -> str:
    """Return which of ``KINDS`` a model is of.

    Raises:
        ConfigError: another algorithm.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    sb3 = library("stable_baselines3", "sb3")
    kind = next((name for name in KINDS if isinstance(model, getattr(sb3, name))), None)
    if kind is None:
        raise ConfigError(
            f"{type(model).__name__} of {type(model).__module__.partition('.')[0]}: expected SAC, TD3, DDPG, DQN, PPO "
            "or A2C of stable_baselines3; UnitPruning prunes the units of other networks, and Pruner their weights"
        )
    return kind


def kind_of(model: Any) -> str:
    """Return which algorithm a model is of whose units are to be pruned.

    Raises:
        ConfigError: none that is known, or one with features of an extractor that learns, or state-dependent noise.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    kind, policy = algorithm_of(model), require_torch(model)
    for name, part in policy.named_modules():
        if name.endswith("features_extractor") and next(part.parameters(), None) is not None:
            raise ConfigError(
                f"{type(model).__name__} with features of {type(part).__name__}, which learns and may be shared: "
                "expected an extractor without parameters, as MlpPolicy has for vectors and MultiInputPolicy for "
                "dictionaries of them; prune such a network by UnitPruning, in a loop of your own"
            )
    if getattr(model, "use_sde", False):
        raise ConfigError(
            f"{type(model).__name__} with use_sde=True: expected use_sde=False; state-dependent noise has a number for "
            "each unit of the last hidden layer, which cannot be removed"
        )
    return kind


def actor_of(model: Any, kind: str) -> TrainedNetwork:
    """Return what ``model.predict`` runs: of DQN its values, of PPO and A2C the side of the policy.

    Raises:
        ConfigError: a policy that is not Stable-Baselines3's own.
    """
    policy = model.policy
    try:
        if kind == "SAC":
            actor = policy.actor
            # With state-dependent noise, log_std is a parameter and not a layer.
            heads = [head for head in (actor.mu, actor.log_std) if isinstance(head, nn.Module)]
            module = _Heads(actor.latent_pi, heads)
            return TrainedNetwork("actor", module, (), actor.optimizer, _linear(actor.latent_pi))
        if kind == "TD3":
            actor, target = policy.actor, policy.actor_target.mu
            return TrainedNetwork("actor", actor.mu, (target,), actor.optimizer, _linear(actor.mu)[:-1])
        if kind == "DQN":
            network, target = policy.q_net.q_net, policy.q_net_target.q_net
            return TrainedNetwork("actor", network, (target,), policy.optimizer, _linear(network)[:-1])
        trunk = policy.mlp_extractor.policy_net
        return TrainedNetwork("actor", _Heads(trunk, [policy.action_net]), (), policy.optimizer, _linear(trunk))
    except (AttributeError, TypeError) as error:
        raise _unknown(model, error) from error


def critic_of(model: Any, kind: str) -> TrainedNetwork:
    """Return what values: the critics together, of PPO and A2C the side of the value.

    Raises:
        ConfigError: DQN has no critic, or a policy is not Stable-Baselines3's own.
    """
    policy = model.policy
    if kind == "DQN":
        raise ConfigError("critics of DQN: expected max_parameters or max_flops, which are of its one network")
    try:
        if kind in ("PPO", "A2C"):
            trunk = policy.mlp_extractor.value_net
            return TrainedNetwork("critic", _Heads(trunk, [policy.value_net]), (), policy.optimizer, _linear(trunk))
        networks = policy.critic.q_networks
        targets = (_Twins(policy.critic_target.q_networks),)
    except (AttributeError, TypeError) as error:
        raise _unknown(model, error) from error
    hidden = [_linear(network)[:-1] for network in networks]
    depth = len(hidden[0])
    alike = [tuple(layer + depth * number for number in range(len(hidden))) for layer in range(depth)]
    every = tuple(layer for layers in hidden for layer in layers)
    optimizer = policy.critic.optimizer
    return TrainedNetwork("critic", _Twins(networks), targets, optimizer, every, tuple(alike), tuple(networks))


def write_widths(model: Any, kind: str) -> None:
    """Let the model and its policy say the widths that their layers have now, wherever they say them."""
    policy, actor = model.policy, _widths(actor_of(model, kind).hidden)
    if kind == "DQN":
        arch: Any = actor
        policy.net_args["net_arch"] = arch
        policy.q_net.net_arch = policy.q_net_target.net_arch = arch
    elif kind in ("PPO", "A2C"):
        arch = {"pi": actor, "vf": _widths(critic_of(model, kind).hidden)}
        for key, last in (("pi", policy.action_net), ("vf", policy.value_net)):
            setattr(policy.mlp_extractor, f"latent_dim_{key}", last.in_features)
    else:
        critics = critic_of(model, kind)
        arch = {"pi": actor, "qf": _widths(critics.hidden[: len(critics.alike)])}
        policy.actor_kwargs["net_arch"], policy.critic_kwargs["net_arch"] = arch["pi"], arch["qf"]
        for name in ("actor", "actor_target"):
            if hasattr(policy, name):
                getattr(policy, name).net_arch = arch["pi"]
    policy.net_arch = arch
    model.policy_kwargs = {**model.policy_kwargs, "net_arch": arch}  # another dictionary: the user's may make others


def _linear(network: nn.Sequential) -> tuple[nn.Linear, ...]:
    return tuple(part for part in network if isinstance(part, nn.Linear))


def _widths(layers: Sequence[nn.Linear]) -> list[int]:
    return [layer.out_features for layer in layers]


def _unknown(model: Any, error: Exception) -> ConfigError:
    return ConfigError(
        f"{type(model).__name__} with the policy {type(model.policy).__name__} ({error}): expected MlpPolicy or "
        "MultiInputPolicy of stable_baselines3; UnitPruning prunes the units of other networks, and Pruner their "
        "weights"
    )


__all__ = ["KINDS", "TrainedNetwork", "actor_of", "algorithm_of", "critic_of", "kind_of", "write_widths"]
