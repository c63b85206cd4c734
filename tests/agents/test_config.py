"""Configurations: every value is of the type that its field declares, or the error says what to pass."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import pytest
import torch

from agents.behaviour_cloning import BehaviourCloningConfig
from agents.config import OffPolicyConfig, kinds_of
from agents.cql import CQLConfig, DiscreteCQLConfig
from agents.dqn import DQNConfig
from agents.methods.asymmetric import AsymmetricConfig
from agents.sac import SACConfig
from agents.td3 import TD3Config
from budget_wrappers.errors import ConfigError
from tests.agents.small import make_agent

CONFIGS = [
    OffPolicyConfig,
    SACConfig,
    TD3Config,
    DQNConfig,
    CQLConfig,
    DiscreteCQLConfig,
    AsymmetricConfig,
    BehaviourCloningConfig,
]


def schedule(progress: float) -> float:
    return 3e-4 * progress


# ---- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "key", "value", "message"),
    [
        (SACConfig, "learning_rate", "3e-4", r"'3e-4': expected a finite number; .*such as the default 0\.0003"),
        (SACConfig, "learning_rate", schedule, "expected a finite number"),
        (SACConfig, "learning_rate", math.inf, "inf: expected a finite number"),
        (SACConfig, "learning_rate", 10**400, "expected a finite number"),
        (SACConfig, "gamma", True, "True: expected a finite number"),
        (SACConfig, "buffer_size", 1e5, r"100000\.0: expected a whole number; pass buffer_size=100000$"),
        (SACConfig, "batch_size", 64.0, r"64\.0: expected a whole number; pass batch_size=64$"),
        (SACConfig, "train_freq", (1, "episode"), r"\(1, 'episode'\): expected a whole number"),
        (SACConfig, "train_freq", True, "True: expected a whole number"),
        (SACConfig, "seed", None, "None: expected a whole number"),
        (SACConfig, "seed", -1, "-1: expected 0 or more"),
        (SACConfig, "seed", 2**64, r"expected 0 or more, and below 2\*\*63"),
        (SACConfig, "net_arch", 256, r"256: expected a sequence of whole numbers; .*the default \(256, 256\)"),
        (SACConfig, "net_arch", "256", "'256': expected a sequence of whole numbers"),
        (SACConfig, "net_arch", [64.0], r"\[64\.0\]: expected a sequence of whole numbers"),
        (SACConfig, "net_arch", [[1], [2, 3]], "expected a sequence of whole numbers"),
        (SACConfig, "net_arch", np.ones((2, 2), int), "expected a sequence of whole numbers"),
        (SACConfig, "activation", 3, "3: expected 'relu' or 'tanh'"),
        (SACConfig, "ent_coef", "auto_0.1", r"'auto_0\.1': expected 'auto' or a finite number"),
        (SACConfig, "target_entropy", math.nan, "nan: expected 'auto' or a finite number"),
        (CQLConfig, "cql_target_gap", math.nan, "nan: expected a finite number"),
        (DQNConfig, "double", 1, "1: expected True or False"),
        (AsymmetricConfig, "small_net_arch", 8, "8: expected a sequence of whole numbers"),
        (AsymmetricConfig, "hold", 2.5, r"2\.5: expected a whole number"),
        (TD3Config, "device", 0, "0: expected a text"),
        (TD3Config, "device", "gpu", "'gpu': expected 'auto', 'cpu', 'cuda' or another"),
    ],
)
def test_value_of_another_type_is_refused_with_what_to_pass(
    config: type[OffPolicyConfig], key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^{key}=.*{message}"):
        config.of({key: value})


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_a_kind_and_its_default_is_of_it(config: type[OffPolicyConfig]) -> None:
    made = config()
    assert [name for name, kind in kinds_of(config) if kind.expected == "anything"] == []
    assert made == config.of(made.to_dict())
    assert hash(made) == hash(config.of(made.to_dict()))
    for field in dataclasses.fields(config):
        assert getattr(made, field.name) == field.default
        with pytest.raises(ConfigError, match=f"^{field.name}="):
            config.of({field.name: object()})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("buffer_size", np.int64(100), 100),
        ("learning_rate", np.float32(0.5), 0.5),
        ("learning_rate", 1, 1),
        ("ent_coef", 0, 0),
        ("ent_coef", "auto", "auto"),
        ("target_entropy", np.float64(-2.0), -2.0),
        ("net_arch", [8, np.int32(4)], (8, 4)),
        ("net_arch", np.array([8, 4]), (8, 4)),
        ("net_arch", range(3, 5), (3, 4)),
        ("seed", np.uint8(7), 7),
    ],
)
def test_number_of_numpy_becomes_plain_python(key: str, value: Any, expected: Any) -> None:
    taken = getattr(SACConfig.of({key: value}), key)
    assert taken == expected
    assert type(taken) is type(expected)
    if isinstance(taken, tuple):
        assert {type(width) for width in taken} == {int}


def test_fields_of_a_child_are_checked_before_it_compares_them() -> None:
    @dataclasses.dataclass(frozen=True)
    class Child(OffPolicyConfig):
        share: float | None = None
        mode: Literal["a", 1] = "a"

        def __post_init__(self) -> None:
            super().__post_init__()
            assert self.share is None or self.share >= 0

    assert (Child(share=0.5).share, Child(mode=1).mode) == (0.5, 1)
    with pytest.raises(ConfigError, match=r"share='0\.5': expected a finite number or None; pass share=… of that kind"):
        Child.of({"share": "0.5"})
    with pytest.raises(ConfigError, match="mode=True: expected 'a' or 1"):
        Child.of({"mode": True})


# ---- devices and seeds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("present", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_accelerator_where_there_is_one(
    present: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert SACConfig(device="auto").device == device
    assert SACConfig(device="auto") == SACConfig(device=device)


def test_greatest_seed_seeds_every_generator() -> None:
    agent = make_agent("sac", seed=2**63 - 1).learn(60)
    assert agent.num_timesteps == 60


# ---- networks without hidden layers ---------------------------------------------------------------------------------


def test_linear_q_network_learns() -> None:
    assert make_agent("dqn", net_arch=(), dueling=False).learn(80).num_updates > 0


@pytest.mark.parametrize("config_class", [SACConfig, TD3Config, AsymmetricConfig])
def test_actor_without_a_hidden_layer_is_refused(config_class: type) -> None:
    with pytest.raises(ConfigError, match="at least one hidden layer"):
        config_class.of({"net_arch": ()})
