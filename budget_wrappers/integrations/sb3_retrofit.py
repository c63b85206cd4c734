"""What retrofitting has to know of a Stable-Baselines3 model: its actor's layers, what they mean, and its critic.

The model is read and never changed; see ``budget_wrappers.policies.retrofit``.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from budget_wrappers.deploy.exit_policy import Normalisation
from budget_wrappers.errors import ConfigError
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import TrainedActor, Worth, perceptron_of


def trained_actor(model: Any) -> TrainedActor:
    """Return the actor of SAC, TD3, DDPG, DQN, PPO or A2C with a policy of perceptrons.

    Exits of SAC, TD3, DDPG and DQN are valued by the model's own critic. PPO's and A2C's value states only, so an exit
    is worth as much as it is like the last one.

    Raises:
        ConfigError: a policy that retrofitting does not know: images, dictionaries, features shared by a network.
        SpaceError: a space of actions that is neither discrete nor a box of one dimension.
    """
    policy = getattr(model, "policy", None)
    if not isinstance(policy, nn.Module) or not isinstance(getattr(model, "observation_space", None), spaces.Box):
        raise _unsupported(model)
    normalisation = normalisation_of(model)
    to_array = np.asarray if normalisation is None else normalisation
    if hasattr(policy, "q_net"):
        _require_plain_features(model, policy.q_net.features_extractor)
        layers, activation, _ = perceptron_of(policy.q_net.q_net)
        return TrainedActor(layers, activation, ActionMap.of(model.action_space), None, to_array)
    if hasattr(policy, "mlp_extractor"):
        _require_plain_features(model, policy.pi_features_extractor)
        layers, activation, _ = perceptron_of([*policy.mlp_extractor.policy_net, policy.action_net])
        meaning = "squash" if getattr(policy, "squash_output", False) else "clip"
        return TrainedActor(layers, activation, ActionMap.of(model.action_space, meaning), None, to_array)
    if not hasattr(policy, "actor"):
        raise _unsupported(model)
    actor = policy.actor
    _require_plain_features(model, actor.features_extractor)
    if hasattr(actor, "latent_pi"):
        layers, activation, _ = perceptron_of([*actor.latent_pi, actor.mu])
    else:
        layers, activation, _ = perceptron_of(actor.mu)
    return TrainedActor(layers, activation, ActionMap.of(model.action_space, "squash"), _worth(policy.critic), to_array)


def normalisation_of(model: Any) -> Normalisation | None:
    """Return how observations were normalised in training, by the ``VecNormalize`` that the model has; else None."""
    normaliser = model.get_vec_normalize_env()
    if normaliser is None or not normaliser.norm_obs:
        return None
    deviation = np.sqrt(normaliser.obs_rms.var + normaliser.epsilon)
    return Normalisation(normaliser.obs_rms.mean.copy(), deviation, float(normaliser.clip_obs))


def _worth(critic: nn.Module) -> Worth:
    """Return the smallest of the critic's values; it takes actions in [−1, 1], as its replay stores them."""

    @torch.no_grad()
    def worth(observation: Tensor, action: Tensor) -> Tensor:
        return torch.cat(critic(observation, action), 1).min(1).values

    return worth


def _require_plain_features(model: Any, extractor: nn.Module) -> None:
    if any(True for _ in extractor.parameters()):
        raise _unsupported(model)


def _unsupported(model: Any) -> ConfigError:
    return ConfigError(
        f"{type(model).__name__} with {type(getattr(model, 'policy', model)).__name__}: expected SAC, TD3, DDPG, DQN, "
        "PPO or A2C with MlpPolicy on observations of one box; for other networks give TrainedActor its layers"
    )


__all__ = ["normalisation_of", "trained_actor"]
