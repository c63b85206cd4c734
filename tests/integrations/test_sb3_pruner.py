"""Weights of Stable-Baselines3's networks are pruned while they learn; what is saved is a plain model with zeros."""

import copy
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback

from budget_wrappers.errors import ConfigError, MissingExtraError
from budget_wrappers.functional.sparsity import PolynomialSchedule, layer_sparsities
from budget_wrappers.integrations.sb3 import flops_per_action, metered
from budget_wrappers.integrations.sb3_pruner import PruneWeights
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.pruner import Pruner

SMALL = {"policy_kwargs": {"net_arch": [24, 16]}, "seed": 0, "device": "cpu"}
OFF_POLICY = {**SMALL, "learning_starts": 20, "batch_size": 16, "buffer_size": 300}
CASES: dict[str, tuple[type, str, dict[str, Any]]] = {
    "SAC": (SAC, "Pendulum-v1", OFF_POLICY),
    "TD3": (TD3, "Pendulum-v1", OFF_POLICY),
    "DDPG": (DDPG, "Pendulum-v1", OFF_POLICY),
    "DQN": (DQN, "CartPole-v1", {**OFF_POLICY, "train_freq": 1, "target_update_interval": 10}),
    "PPO": (PPO, "CartPole-v1", {**SMALL, "n_steps": 16, "batch_size": 8, "n_epochs": 2}),
    "A2C": (A2C, "Pendulum-v1", SMALL),
}
STEPS = 110


class StopAt(BaseCallback):
    """Stop a training after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def _on_step(self) -> bool:
        return self.model.num_timesteps < self._steps


class Pictures(gym.ObservationWrapper):
    """CartPole that shows a picture."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.zeros((36, 36, 1), np.uint8)


def make(name: str, **settings: Any) -> Any:
    cls, env, own = CASES[name]
    return cls("MlpPolicy", gym.make(env), **copy.deepcopy({**own, **settings}))


def prune(name: str, final: float = 0.8, **settings: Any) -> PruneWeights:
    critics = {} if name == "DQN" else {"critic_final": 0.5}
    return PruneWeights(final, **{"every": 5, **critics, **settings})


def acting(model: Any) -> list[nn.Linear]:
    """Return the layers that ``predict`` runs."""
    policy = model.policy
    if isinstance(model, DQN):
        parts = [policy.q_net]
    elif isinstance(model, PPO | A2C):
        parts = [policy.mlp_extractor.policy_net, policy.action_net]
    else:
        parts = [policy.actor]
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]


def valuing(model: Any) -> list[nn.Linear]:
    """Return the layers of the critics."""
    policy = model.policy
    parts = [policy.mlp_extractor.value_net, policy.value_net] if isinstance(model, PPO | A2C) else [policy.critic]
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]


def zeros(layers: list[nn.Linear]) -> list[int]:
    return [int((layer.weight == 0).sum()) for layer in layers]


def require_share(layers: list[nn.Linear], final: float) -> None:
    """Check each layer's zeros: within one weight of the share that the schedule gives it."""
    shares = layer_sparsities([tuple(layer.weight.shape) for layer in layers], final, "erk")
    for layer, found, share in zip(layers, zeros(layers), shares, strict=True):
        assert abs(found - share * layer.weight.numel()) <= 1


def optimizers(model: Any) -> list[torch.optim.Optimizer]:
    found = [getattr(part, "optimizer", None) for part in model.policy.modules()]
    return [optimizer for optimizer in found if optimizer is not None]


def require_no_hooks(model: Any) -> None:
    assert optimizers(model)
    for optimizer in optimizers(model):
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.policy.modules())


def observations(model: Any) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(32, *model.observation_space.shape)).astype(np.float32)


def same(one: Any, other: Any) -> bool:
    here, there = one.policy.state_dict(), other.policy.state_dict()
    return here.keys() == there.keys() and all(map(torch.equal, here.values(), there.values()))


# ---- what is pruned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_final_sparsity_of_0_changes_no_bit(name: str) -> None:
    plain = make(name)
    plain.learn(STEPS)
    state, pruned = torch.get_rng_state(), make(name)
    pruned.learn(STEPS, callback=(callback := PruneWeights(0.0, every=5)))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(pruned, plain)
    assert pruned._n_updates == plain._n_updates > 0
    assert callback.pruner_of().steps > 0


@pytest.mark.parametrize("final", [0.5, 0.9])
@pytest.mark.parametrize("name", CASES)
def test_each_layer_ends_within_one_weight_of_its_share(name: str, final: float) -> None:
    model, callback = make(name), prune(name, final)
    model.learn(STEPS, callback=callback)
    require_share(acting(model), final)
    pruner = callback.pruner_of()
    total = sum(layer.weight.numel() for layer in acting(model))
    assert pruner.sparsity == sum(zeros(acting(model))) / total
    assert pruner.sparsity <= pruner.effective_sparsity < 1
    assert pruner.complete
    require_no_hooks(model)
    if name != "DQN":
        layers = valuing(model)
        assert sum(zeros(layers)) / sum(layer.weight.numel() for layer in layers) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["SAC", "PPO", "A2C"])
def test_critics_and_extractors_stay_dense_unless_they_are_asked_for(name: str) -> None:
    model = make(name)
    model.learn(STEPS, callback=PruneWeights(0.8, every=5))
    assert sum(zeros(acting(model))) > 0
    assert sum(zeros(valuing(model))) == 0


@pytest.mark.parametrize("name", ["SAC", "TD3", "DQN"])
def test_targets_are_0_where_the_networks_are(name: str) -> None:
    model = make(name)
    model.learn(STEPS, callback=prune(name))
    policy = model.policy
    pairs = [(policy.q_net, policy.q_net_target)] if name == "DQN" else [(policy.critic, policy.critic_target)]
    pairs += [(policy.actor, policy.actor_target)] if name == "TD3" else []
    for network, target in pairs:
        for own, other in zip(network.parameters(), target.parameters(), strict=True):
            assert own.dim() < 2 or not other[own == 0].any()


@pytest.mark.parametrize("name", ["SAC", "A2C"])
def test_state_dependent_noise_is_left_alone(name: str) -> None:
    model = make(name, use_sde=True)
    model.learn(STEPS, callback=PruneWeights(0.8, every=5))
    require_share(acting(model), 0.8)


def test_an_extractor_of_pictures_is_left_alone() -> None:
    model = DQN("CnnPolicy", Pictures(), **{**OFF_POLICY, "policy_kwargs": {"net_arch": [16]}})
    model.learn(60, callback=PruneWeights(0.8, every=5))
    assert sum(zeros([part for part in model.q_net.q_net if isinstance(part, nn.Linear)])) > 0
    assert all(bool((parameter != 0).any()) for parameter in model.q_net.features_extractor.parameters())
    whole = Pruner(model.q_net, model.policy.optimizer, PolynomialSchedule(0, 1, 0.8), total_steps=5)
    assert len(whole.masks.shapes) == 6  # three convolutions and a layer of features, and two layers of values


# ---- the zip, and what happens on the way ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_zip_loads_says_the_same_to_the_digit_and_has_the_zeros(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.learn(STEPS, callback=prune(name, 0.9))
    model.save(tmp_path / "sparse.zip")
    loaded = CASES[name][0].load(tmp_path / "sparse.zip", env=gym.make(CASES[name][1]), device="cpu")
    assert zeros(acting(loaded)) == zeros(acting(model))
    said = [one.predict(observations(model), deterministic=True)[0] for one in (loaded, model)]
    np.testing.assert_array_equal(*said)
    require_no_hooks(loaded)
    loaded.learn(30)


def test_checkpoints_on_the_way_hold_the_zeros_of_the_moment(tmp_path: Path) -> None:
    model = make("SAC")
    model.learn(STEPS, callback=[PruneWeights(0.9, every=1), CheckpointCallback(50, str(tmp_path), "model")])
    sparse = [sum(zeros(acting(SAC.load(tmp_path / f"model_{steps}_steps.zip")))) for steps in (50, 100)]
    assert 0 < sparse[0] < sparse[1] == sum(zeros(acting(model)))


@pytest.mark.parametrize("name", CASES)
def test_a_training_that_was_stopped_goes_on_with_the_same_callback(name: str) -> None:
    model, callback = make(name), prune(name, 0.9)
    model.learn(STEPS, callback=[callback, StopAt(60)])
    assert not callback.pruner_of().complete
    require_no_hooks(model)
    before = sum(zeros(acting(model)))
    assert before > 0
    model.learn(50, callback=callback, reset_num_timesteps=False)
    require_share(acting(model), 0.9)
    require_no_hooks(model)


def test_what_is_pruned_stays_so_in_the_next_call_of_learn_with_the_same_callback() -> None:
    model, callback = make("SAC"), PruneWeights(0.9, every=5)
    model.learn(STEPS, callback=callback)
    where = [layer.weight == 0 for layer in acting(model)]
    model.learn(60, callback=callback)
    assert all(not layer.weight[gone].any() for layer, gone in zip(acting(model), where, strict=True))


def test_updates_that_end_before_the_schedule_does_are_completed() -> None:
    model, callback = make("SAC", train_freq=60), PruneWeights(0.9, end=1.0)
    model.learn(100, callback=callback)  # rounds of updates after 60 and 120 steps
    require_share(acting(model), 0.9)
    model, callback = make("SAC", learning_starts=1000), PruneWeights(0.9)
    model.learn(50, callback=callback)  # none
    require_share(acting(model), 0.9)


def test_one_callback_goes_from_model_to_model() -> None:
    first, second, callback = make("SAC"), make("TD3"), PruneWeights(0.9, every=5)
    first.learn(STEPS, callback=callback)
    second.learn(STEPS, callback=callback)
    for model in (first, second):
        require_share(acting(model), 0.9)
        require_no_hooks(model)


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_a_meter_counts_what_was_executed_which_is_the_dense_network(name: str) -> None:
    meter = ComputeMeter("pruned")
    model = metered(make(name), meter)
    flops = flops_per_action(model)
    model.learn(STEPS, callback=PruneWeights(0.9, every=5))
    require_share(acting(model), 0.9)
    before = meter.executed
    model.predict(observations(model)[:1], deterministic=True)
    assert meter.executed - before == flops == flops_per_action(model)


def test_the_log_has_the_sparsity() -> None:
    class Reading(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            seen.append(self.logger.name_to_value["sparsity/actor"])

    seen: list[float] = []
    make("PPO").learn(STEPS, callback=[PruneWeights(0.8, every=1), Reading()])
    assert seen == sorted(seen)
    assert seen[0] == 0 < seen[-1]


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final": 1.0}, "final=1.0: expected a share of the weights in [0, 1)"),
        ({"critic_final": -0.1}, "critic_final=-0.1: expected a share of the weights in [0, 1)"),
        ({"start": 0.9}, "start=0.9: expected a share of the run in [0, 1], below end=0.8"),
        ({"power": 0}, "power=0: expected an exponent above 0"),
        ({"every": 0}, "every=0: expected at least 1"),
        ({"distribution": "even"}, "distribution='even': expected one of erk, uniform, global"),
    ],
)
def test_arguments_out_of_bounds_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        PruneWeights(**arguments)


def test_dqn_has_no_critic() -> None:
    model = make("DQN")
    with pytest.raises(ConfigError, match=re.escape("critic_final=0.5: expected 0 for DQN")):
        model.learn(20, callback=PruneWeights(critic_final=0.5))
    require_no_hooks(model)


def test_an_algorithm_of_another_library_is_refused() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.TQC("MlpPolicy", gym.make("Pendulum-v1"), **copy.deepcopy(OFF_POLICY))
    with pytest.raises(ConfigError, match=r"TQC of sb3_contrib: expected SAC.*and Pruner their weights"):
        model.learn(20, callback=PruneWeights())


def test_a_policy_of_another_structure_is_refused() -> None:
    model = make("SAC")
    model.policy.actor.latent_pi = nn.LSTM(3, 16)
    with pytest.raises(ConfigError, match="SAC with the policy SACPolicy"):
        model.learn(20, callback=PruneWeights())


def test_two_callbacks_do_not_prune_one_model() -> None:
    model = make("PPO")
    with pytest.raises(ConfigError, match=r"another Pruner prunes.*call its remove\(\) first"):
        model.learn(20, callback=[first := PruneWeights(), PruneWeights(0.5)])
    assert model.num_timesteps == 0
    first.remove()
    require_no_hooks(model)
    model.learn(STEPS, callback=PruneWeights(0.8, every=5))
    require_share(acting(model), 0.8)


def test_a_network_that_is_not_pruned_is_named() -> None:
    with pytest.raises(ConfigError, match="the weights of 'actor': expected one of none before learn"):
        PruneWeights().pruner_of()


def test_without_stable_baselines3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "stable_baselines3":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'budget-wrappers\[sb3\]'"):
        PruneWeights()
