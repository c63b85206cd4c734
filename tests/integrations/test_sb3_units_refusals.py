"""Models and arguments that ``PruneUnits`` cannot prune are refused before a step is taken."""

import copy
import re
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, MissingExtraError
from budget_wrappers.integrations.sb3_units import PruneUnits

SETTINGS = {"seed": 0, "device": "cpu"}
OFF_POLICY = {**SETTINGS, "buffer_size": 50}


class Learnt(BaseFeaturesExtractor):
    """Features of a layer of its own."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 8)
        self.layer = nn.Linear(space.shape[0], 8)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.layer(observation)


class Pictures(gym.ObservationWrapper):
    """CartPole that shows a picture."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.zeros((36, 36, 1), np.uint8)


def sac(**policy: Any) -> SAC:
    return SAC("MlpPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [8, 8], **policy}, **OFF_POLICY)


def ppo(**policy: Any) -> PPO:
    return PPO(
        "MlpPolicy",
        gym.make("CartPole-v1"),
        policy_kwargs={"net_arch": [8], **policy},
        n_steps=8,
        batch_size=8,
        **SETTINGS,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_parameters": -1}, "max_parameters=-1: expected at least 0"),
        ({"max_critic_parameters": 2.5}, "max_critic_parameters=2.5: expected at least 0"),
        ({"max_parameters": 9, "max_flops": 9}, "max_flops=9: expected 0 beside max_parameters=9"),
        ({"unit_penalty": 0}, "unit_penalty=0: expected a price above 0"),
        ({"critic_unit_penalty": -1e-6}, "critic_unit_penalty=-1e-06: expected a price of 0 or more"),
        ({"learn_from": 0.9}, "learn_from=0.9: expected a share of the run in [0, 1], below fix_from=0.8"),
        ({"drop_below": 0.7}, "drop_below=0.7: expected a probability in (0, 0.5]"),
        ({"prune_every": 0}, "prune_every=0: expected at least 1"),
        ({"unit_learning_rate": "fast"}, "unit_learning_rate='fast': expected 'auto' or a number above 0"),
        ({"seed": -1}, "seed=-1: expected at least 0"),
    ],
)
def test_arguments_out_of_bounds_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        PruneUnits(**arguments)


MODELS: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: sac(features_extractor_class=Learnt), {}, "SAC with features of Learnt, which learns"),
    (lambda: ppo(features_extractor_class=Learnt), {}, "PPO with features of Learnt, which learns"),
    (
        lambda: DQN("CnnPolicy", Pictures(), **OFF_POLICY),
        {},
        "DQN with features of NatureCNN, which learns and may be shared: expected an extractor without parameters",
    ),
    (
        lambda: SAC("MlpPolicy", gym.make("Pendulum-v1"), use_sde=True, **OFF_POLICY),
        {},
        "SAC with use_sde=True: expected use_sde=False",
    ),
    (
        lambda: A2C("MlpPolicy", gym.make("Pendulum-v1"), use_sde=True, **SETTINGS),
        {},
        "A2C with use_sde=True: expected use_sde=False",
    ),
    (
        lambda: DQN("MlpPolicy", gym.make("CartPole-v1"), **OFF_POLICY),
        {"max_critic_parameters": 100},
        "critics of DQN: expected max_parameters or max_flops",
    ),
    (lambda: sac(net_arch=[]), {}, "SAC with net_arch=[]: expected a hidden layer in the actor"),
    (
        lambda: ppo(net_arch={"pi": [8], "vf": []}),
        {"max_critic_parameters": 100},
        "expected a hidden layer in the critic, whose units can be pruned",
    ),
    (
        lambda: sac(activation_fn=nn.Softmax),
        {},
        "the actor of SAC with activation_fn=Softmax and net_arch=[8, 8]: expected linear layers",
    ),
]


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")
@pytest.mark.parametrize(("make", "arguments", "message"), MODELS, ids=[message[:40] for *_, message in MODELS])
def test_models_that_are_not_known_are_refused_and_stay_as_they_are(
    make: Any, arguments: dict[str, Any], message: str
) -> None:
    model = make()
    before = copy.deepcopy(model.policy.state_dict())
    with pytest.raises(ConfigError, match=re.escape(message)):
        model.learn(20, callback=PruneUnits(**{"max_parameters": 100, **arguments}))
    assert model.num_timesteps == 0
    assert all(map(torch.equal, model.policy.state_dict().values(), before.values()))


def test_an_algorithm_of_another_library_is_refused() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.TQC("MlpPolicy", gym.make("Pendulum-v1"), **OFF_POLICY)
    with pytest.raises(ConfigError, match="TQC of sb3_contrib: expected SAC, TD3, DDPG, DQN, PPO or A2C"):
        model.learn(20, callback=PruneUnits(max_parameters=100))


def test_a_size_below_the_smallest_network_is_infeasible() -> None:
    with pytest.raises(InfeasibleBudgetError, match="9 parameters: expected 10 at least"):
        sac().learn(20, callback=PruneUnits(max_parameters=9))


def test_two_callbacks_do_not_prune_one_model() -> None:
    with pytest.raises(ConfigError, match=re.escape("PPO is pruned by another PruneUnits: expected one")):
        ppo().learn(20, callback=[PruneUnits(max_parameters=30), PruneUnits(max_parameters=20)])


def test_a_network_that_is_not_pruned_has_no_units() -> None:
    with pytest.raises(ConfigError, match="the units of 'actor': expected one of none before learn"):
        PruneUnits().units_of()


def test_without_stable_baselines3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "stable_baselines3":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'budget-wrappers\[sb3\]'"):
        PruneUnits()
