"""critic_net_arch: the critics keep their widths while that which acts becomes narrower or wider."""

import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import SAC, Asymmetric, Exits
from agents.cli import main
from agents.config import ActorCriticConfig
from agents.cql import DiscreteCQLConfig
from agents.dqn import DQNConfig
from agents.loop.checkpoint import read, restore_agent, save_agent
from budget_wrappers.errors import CheckpointError, ConfigError
from tests.agents.methods.combining import FINAL, METHODS, made
from tests.agents.small import make_agent

NARROW, WIDE = (4, 4), (12, 10)
ACTORS = ("sac", "td3", "cql")


def widths(network: Any) -> set[tuple[int, ...]]:
    """Return the sizes of a critic's members, inputs and heads included."""
    return {tuple(member.sizes) for member in network.members}


# ---- what is built --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTORS)
def test_critics_have_widths_of_their_own(name: str) -> None:
    agent = made(name, [], net_arch=NARROW, critic_net_arch=WIDE)
    # Pendulum: 3 numbers and an action of 1; one head
    assert widths(agent.critic) == widths(agent.target_critic) == {(4, *WIDE, 1)}
    assert tuple(agent.policy.net.sizes)[1:-1] == NARROW
    agent.learn(130 if not agent.offline else 20)


@pytest.mark.parametrize("name", ACTORS)
def test_acting_costs_what_the_actor_s_widths_cost(name: str) -> None:
    wide, plain = (made(name, [], net_arch=NARROW, critic_net_arch=widths) for widths in (WIDE, ()))
    assert wide.flops_per_action == plain.flops_per_action


@pytest.mark.parametrize("name", ACTORS)
def test_empty_is_net_arch_to_the_bit(name: str) -> None:
    one, other = (made(name, [], net_arch=NARROW, critic_net_arch=widths) for widths in ((), NARROW))
    for agent in (one, other):
        agent.learn(20 if agent.offline else 120)
    for key, module in one.modules.items():
        for value, twin in zip(module.state_dict().values(), other.modules[key].state_dict().values(), strict=True):
            assert torch.equal(value, twin)


@pytest.mark.parametrize("name", ACTORS)
def test_exits_critics_have_a_head_for_each_exit_on_those_widths(name: str) -> None:
    agent = made(name, [Exits(budget=0.4)], net_arch=NARROW, critic_net_arch=WIDE)
    assert widths(agent.critic) == widths(agent.target_critic) == {(4, *WIDE, 3)}
    assert agent.exits.flops == made(name, [Exits(budget=0.4)], net_arch=NARROW).exits.flops
    agent.learn(20 if agent.offline else 130)


@pytest.mark.parametrize("name", ACTORS)
def test_pruning_masks_the_critics_as_they_are(name: str) -> None:
    agent = made(name, METHODS["exits+polyprune"](), net_arch=NARROW, critic_net_arch=WIDE)
    agent.learn(600)
    zeros = [weight for name, weight in agent.critic.named_parameters() if weight.ndim == 2]
    assert [tuple(weight.shape) for weight in zeros] == [(12, 4), (10, 12), (3, 10)] * 2
    share = sum(int((weight == 0).sum()) for weight in zeros) / sum(weight.numel() for weight in zeros)
    assert share == pytest.approx(FINAL, abs=0.02)  # rounded a layer


@pytest.mark.parametrize("name", ["BexaSAC", "BexaTD3", "BexaCQL", "GAIL"])
def test_presets_and_gail_have_the_key_too(name: str) -> None:
    import agents

    assert issubclass(getattr(agents, name).config_class, ActorCriticConfig)


@pytest.mark.parametrize("config", [DQNConfig, DiscreteCQLConfig])
def test_where_the_values_act_there_is_no_such_key(config: Any) -> None:
    with pytest.raises(ConfigError, match="has no key 'critic_net_arch'"):
        config.of({"critic_net_arch": (8,)})


@pytest.mark.parametrize(
    ("value", "message"),
    [((0,), "widths of at least 1"), ("256", "a sequence of whole numbers"), (256, "a sequence of whole numbers")],
)
def test_what_is_no_list_of_widths_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"critic_net_arch=.*expected {message}"):
        SAC.config_class.of({"critic_net_arch": value})


# ---- sub-policies ---------------------------------------------------------------------------------------------------


def asymmetric(**settings: Any) -> Asymmetric:
    small = {"net_arch": (8, 8), "small_net_arch": (4, 4), "batch_size": 8, "buffer_size": 100, "learning_starts": 10}
    return Asymmetric(gym.make("Pendulum-v1"), **small, **settings)


def test_critics_of_each_sub_policy_follow_its_own_widths_unless_given() -> None:
    agent = asymmetric()
    assert (widths(agent.small.critic), widths(agent.large.critic)) == ({(4, 4, 4, 1)}, {(4, 8, 8, 1)})
    agent = asymmetric(critic_net_arch=WIDE)
    assert widths(agent.small.critic) == widths(agent.large.critic) == {(4, *WIDE, 1)}
    assert agent.options.choice_flops.tolist() == asymmetric().options.choice_flops.tolist()
    agent.learn(30)


# ---- checkpoints and the command line -------------------------------------------------------------------------------


def test_a_checkpoint_has_the_widths(tmp_path: Path) -> None:
    agent = make_agent("sac", critic_net_arch=WIDE).learn(60)
    path = save_agent(agent, tmp_path / "agent")
    loaded = SAC.load(path, None)
    assert (loaded.config.critic_net_arch, widths(loaded.critic)) == (WIDE, {(4, *WIDE, 1)})
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])
    with pytest.raises(CheckpointError, match="critic_net_arch"):
        restore_agent(make_agent("sac"), path)


def test_a_checkpoint_of_an_earlier_version_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_agent(make_agent("sac").learn(60), tmp_path / "agent")

    def read_older(*arguments: Any, **keywords: Any) -> Any:
        header, tensors = read(*arguments, **keywords)
        config = {key: value for key, value in header["config"].items() if key != "critic_net_arch"}
        return {**header, "config": config}, tensors

    monkeypatch.setattr("agents.loop.checkpoint.read", read_older)
    restore_agent(make_agent("sac"), path)
    assert SAC.load(path, None).config.critic_net_arch == ()


@pytest.mark.parametrize("verb", ["sac", "td3", "bexa-sac", "asymmetric"])
def test_it_is_a_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", verb, "--env", "Pendulum-v1", "--critic-net-arch", "12", "10", "--dry-run"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["critic_net_arch"] == [12, 10]
