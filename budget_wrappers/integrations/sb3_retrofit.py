"""What retrofitting has to know of a Stable-Baselines3 model: its actor's layers, what they mean, and its critic.

The model is read and never changed; see ``budget_wrappers.policies.retrofit``.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from budget_wrappers.deploy.exit_policy import Normalisation
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import TrainedActor, Worth, perceptron_of
from budget_wrappers.policies.rows import Concatenation


def trained_actor(model: Any) -> TrainedActor:
    """Return the actor of SAC, TD3, DDPG, DQN, PPO or A2C with a policy of perceptrons on vectors or Dicts of them.

    Exits of SAC, TD3, DDPG and DQN are valued by the model's own critic. PPO's and A2C's value states only, so an exit
    is worth as much as it is like the last one.

    Raises:
        ConfigError: a policy that retrofitting does not know: images, features of an extractor of one's own, or shared
            by a network, dictionaries that were normalised.
        SpaceError: a space of actions that is neither discrete nor a box of one dimension, or observations that are
            neither vectors nor dictionaries of them.
    """
    policy = getattr(model, "policy", None)
    space = getattr(model, "observation_space", None)
    if not isinstance(policy, nn.Module) or not isinstance(space, spaces.Box | spaces.Dict):
        raise _unsupported(model)
    if hasattr(policy, "q_net"):
        to_array = _to_array(model, policy.q_net.features_extractor)
        layers, activation, _ = perceptron_of(policy.q_net.q_net)
        return TrainedActor(layers, activation, ActionMap.of(model.action_space), None, to_array)
    if hasattr(policy, "mlp_extractor"):
        to_array = _to_array(model, policy.pi_features_extractor)
        layers, activation, _ = perceptron_of([*policy.mlp_extractor.policy_net, policy.action_net])
        meaning = "squash" if getattr(policy, "squash_output", False) else "clip"
        return TrainedActor(layers, activation, ActionMap.of(model.action_space, meaning), None, to_array)
    if not hasattr(policy, "actor"):
        raise _unsupported(model)
    actor = policy.actor
    to_array = _to_array(model, actor.features_extractor)
    if getattr(actor, "use_sde", False) and not isinstance(actor.mu, nn.Linear):
        raise ConfigError(
            f"{type(model).__name__} with use_sde=True clips its actions' means before it squashes them: expected "
            "linear ones; train with use_sde=False, or with policy_kwargs={'clip_mean': 0.0}"
        )
    if hasattr(actor, "latent_pi"):
        layers, activation, _ = perceptron_of([*actor.latent_pi, actor.mu])
    else:
        layers, activation, _ = perceptron_of(actor.mu)
    worth = _worth(policy.critic, space)
    return TrainedActor(layers, activation, ActionMap.of(model.action_space, "squash"), worth, to_array)


def _to_array(model: Any, extractor: nn.Module) -> Callable[[Any], np.ndarray]:
    """Return what makes the network's input of an observation, where ``extractor`` does no more than flatten."""
    if not _flattens(extractor):
        raise _unsupported(model, extractor)
    normaliser, space = model.get_vec_normalize_env(), model.observation_space
    if isinstance(space, spaces.Box):
        if len(space.shape) != 1:
            raise SpaceError(
                f"{type(model).__name__} observes {space}: expected one dimension. Wrap the environment in "
                "gymnasium.wrappers.FlattenObservation and train there"
            )
        return normalisation_of(model) or np.asarray
    if normaliser is not None and normaliser.norm_obs:
        raise ConfigError(
            f"{type(model).__name__} was trained on {model.observation_space} with VecNormalize(norm_obs=True): "
            "expected vectors, or dictionaries as they are; wrap the environment in FlattenObservation and train there"
        )
    return Concatenation.of(model.observation_space)


def normalisation_of(model: Any) -> Normalisation | None:
    """Return how observations were normalised in training, by the ``VecNormalize`` that the model has; else None."""
    normaliser = model.get_vec_normalize_env()
    if normaliser is None or not normaliser.norm_obs:
        return None
    deviation = np.sqrt(normaliser.obs_rms.var + normaliser.epsilon)
    return Normalisation(normaliser.obs_rms.mean.copy(), deviation, float(normaliser.clip_obs))


def _worth(critic: nn.Module, space: spaces.Box | spaces.Dict) -> Worth:
    """Return the smallest of the critic's values; it takes actions in [−1, 1], as its replay stores them.

    Of quantiles (TQC) a critic's value is their mean, ``(B, critics, quantiles)``.
    """
    parts = {key: one.shape[0] for key, one in space.spaces.items()} if isinstance(space, spaces.Dict) else {}

    @torch.no_grad()
    def worth(observation: Tensor, action: Tensor) -> Tensor:
        given = dict(zip(parts, observation.split([*parts.values()], 1), strict=True)) if parts else observation
        values = critic(given, action)
        return (values.mean(2) if isinstance(values, Tensor) else torch.cat(values, 1)).min(1).values

    return worth


def _flattens(extractor: nn.Module) -> bool:
    """Tell whether ``extractor`` hands on what it is given; one's own may change it without any parameters."""
    known = importlib.import_module("stable_baselines3.common.torch_layers")
    if type(extractor) is known.CombinedExtractor:
        return all(type(part) in (nn.Flatten, nn.Identity) for part in extractor.extractors.values())
    return type(extractor) is known.FlattenExtractor


def _unsupported(model: Any, extractor: nn.Module | None = None) -> ConfigError:
    features = "" if extractor is None else f" and {type(extractor).__name__}"
    return ConfigError(
        f"{type(model).__name__} with {type(getattr(model, 'policy', model)).__name__}{features}: expected SAC, TD3, "
        "DDPG, DQN, PPO or A2C with MlpPolicy on observations of one box, or MultiInputPolicy on dictionaries of "
        "vectors, and no features extractor of one's own; for other networks give TrainedActor its layers"
    )


__all__ = ["normalisation_of", "trained_actor"]
