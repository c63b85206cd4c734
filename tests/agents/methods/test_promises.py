"""Promises that a hostile reader broke once: structures, refused agents, kinds of updates, masks, forged files."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from agents import SAC, Asymmetric, Exits, PolyPrune
from agents.behaviour_cloning import BehaviourCloning
from agents.loop.checkpoint import restore_agent
from agents.loop.header import TEXT, metadata_of
from agents.loop.method import Method
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.modules.surgery import keep_units, merged
from tests.agents.methods.combining import FINAL, made, polyprune

SMALL: dict[str, Any] = {"net_arch": (8, 8), "batch_size": 8, "learning_starts": 10, "buffer_size": 1_000}


def pendulum(**limits: Any) -> gym.Env:
    return gym.make("Pendulum-v1", **limits)


def cut(agent: Any, units: int = 4) -> None:
    """Leave the first ``units`` units of the first hidden layer of actor and critics."""
    nets = (agent.policy.net, *agent.critic.members, *agent.target_critic.members)
    kept = [keep_units(net.linears[0], net.linears[1], torch.arange(units)) for net in nets]
    agent.structure_changed(merged(*kept))


# ---- structure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["parameters", "data"])
def test_layers_that_were_cut_by_hand_are_saved_and_loaded_in_their_sizes(way: str, tmp_path: Path) -> None:
    agent = SAC(pendulum(), **SMALL).learn(40)
    for net in (agent.policy.net, *agent.critic.members, *agent.target_critic.members):
        first, second, _ = net.linears
        rows, columns = (slice(4),), (slice(None), slice(4))
        for layer, name, index in ((first, "weight", rows), (first, "bias", rows), (second, "weight", columns)):
            old = getattr(layer, name)
            smaller = old.data[index].clone()
            if way == "data":
                old.data = smaller
            else:
                setattr(layer, name, nn.Parameter(smaller, requires_grad=old.requires_grad))
    agent.structure_changed()
    agent.learn(20)
    assert agent.policy.net[0].out_features == 4
    agent.save(tmp_path / "agent.safetensors")
    again = SAC.load(tmp_path / "agent.safetensors", pendulum())
    assert again.flops_per_action == agent.flops_per_action == 2 * (3 * 4 + 4 * 8 + 8 * 2)
    assert all(
        torch.equal(a, b)
        for mine, theirs in zip(agent.modules.values(), again.modules.values(), strict=True)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
    )


def test_units_that_are_added_are_not_masked() -> None:
    agent = SAC(pendulum(), methods=[PolyPrune(final=0.5, every=5)], **SMALL).learn(20)
    for member in (*agent.critic.members, *agent.target_critic.members):
        first, second, _ = member.linears
        with torch.no_grad():
            first.weight.data = torch.cat([first.weight.data, torch.randn(4, 4)])
            first.bias.data = torch.cat([first.bias.data, torch.zeros(4)])
            second.weight.data = torch.cat([second.weight.data, torch.zeros(8, 4)], 1)
    masks = agent.method("polyprune").masks["critic"]
    before = [int(zeros) for zeros in masks.zeros()]
    assert sum(before) == 2 * (4 * 8 + 8 * 8 + 8) / 2  # half of the weights of two critics
    agent.structure_changed()
    assert [int(zeros) for zeros in masks.zeros()] == before
    agent.train(1)  # outside of learn no schedule goes on
    assert agent.critic.members[0].linears[1].weight[:, 8:].abs().max() > 0


def test_a_run_resumes_to_the_same_bits_after_surgery_at_the_end_of_pruning(tmp_path: Path) -> None:
    env = {"max_episode_steps": 20}
    agent = SAC(pendulum(**env), methods=[PolyPrune(final=0.5, every=70, start=0.1, end=0.3)], **SMALL).learn(200)
    cut(agent, 5)
    agent.save(tmp_path / "agent.safetensors", replay=True)
    again = SAC.load(tmp_path / "agent.safetensors", pendulum(**env))
    for one in (agent, again):
        one.learn(20)
    assert all(torch.equal(a, b) for a, b in zip(agent.critic.parameters(), again.critic.parameters(), strict=True))


# ---- refused agents -------------------------------------------------------------------------------------------------


class Acting(Method):
    name = "acting"

    def start_metering(self, agent: Any) -> int:
        return 5


def test_exits_of_an_agent_that_was_refused_act_with_the_next_one_s_network() -> None:
    exits = Exits(budget=0.3)
    with pytest.raises(ConfigError, match="both act in place of the actor"):
        SAC(pendulum(), methods=[exits, Acting()], **SMALL)
    agent = SAC(pendulum(), methods=[exits], **{**SMALL, "net_arch": (16, 16)}).learn(30)
    assert agent.exits.network is agent.policy
    assert agent.exits.flops[-1] == 710
    assert agent.meter.totals["act"] == int((agent.exits.counts * agent.exits.flops).sum()) > 0


def test_methods_of_sub_policies_that_were_refused_can_be_given_again() -> None:
    exits = Exits(budget=0.3)
    with pytest.raises(ConfigError, match="swap them"):
        Asymmetric(pendulum(), net_arch=(4, 4), small_net_arch=(64, 64), large_methods=[exits])
    Asymmetric(pendulum(), net_arch=(64, 64), small_net_arch=(4, 4), large_methods=[exits])


def test_one_method_is_not_given_to_two_agents() -> None:
    exits = Exits()
    SAC(pendulum(), methods=[exits], **SMALL)
    with pytest.raises(ConfigError, match="given to an agent before"):
        SAC(pendulum(), methods=[exits], **SMALL)


def test_methods_may_come_from_an_iterator() -> None:
    assert [held.name for held in SAC(pendulum(), methods=iter([polyprune()]), **SMALL).methods] == ["polyprune"]


def test_pruning_an_agent_without_critics_or_values_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"methods=.*expected agents with critics"):
        BehaviourCloning(pendulum(), methods=[PolyPrune()])


# ---- updates --------------------------------------------------------------------------------------------------------


class Product(Method):
    """Multiplies two square matrices in every ``every``-th update."""

    def __init__(self, name: str, size: int, every: int) -> None:
        super().__init__()
        self.name, self.size, self.every = name, size, every

    def due(self, agent: Any) -> bool:
        return (agent.num_updates + 1) % self.every == 0

    def update_kind(self, agent: Any) -> str:
        return "extra" if self.due(agent) else ""

    def before_actor_update(self, agent: Any) -> None:
        if self.due(agent):
            torch.ones(self.size, self.size) @ torch.ones(self.size, self.size)


def test_kinds_of_updates_of_two_methods_are_told_apart() -> None:
    def learned(*methods: Method) -> int:
        return SAC(pendulum(), methods=list(methods), **SMALL).learn(22).meter.totals["learn"]

    one, other = ("one", 8, 2), ("other", 64, 3)
    # 12 updates: 6 products of 8·8·8 and 4 of 64·64·64 multiply-adds.
    assert learned(Product(*one), Product(*other)) - learned() == 2 * (6 * 8**3 + 4 * 64**3)


def test_pruning_ends_with_the_last_update_where_updates_do_not_divide_the_run() -> None:
    agent = made("dqn", [polyprune(every=10_000, end=1.0)], train_freq=4).learn(602)
    assert float(agent.method("polyprune").masks["q_network"].sparsity()) == pytest.approx(FINAL, abs=0.01)


def test_under_another_master_methods_are_told_how_long_the_run_is() -> None:
    settings = {"small_net_arch": (4, 4), "net_arch": (16, 16), "batch_size": 8, "learning_starts": 10, "hold": 5}
    agent = Asymmetric(pendulum(), large_methods=[polyprune()], **settings)
    with pytest.raises(ConfigError, match="total_timesteps=None: expected the steps of the run"):
        agent.options_for_another_master()
    options = agent.options_for_another_master(200)
    options.reset(seed=0)
    for _ in range(40):
        options.step(1)
    assert float(agent.large.method("polyprune").masks["critic"].sparsity()) == pytest.approx(FINAL, abs=0.01)


class OwnStep(Method):
    name = "own"

    def descend(self, agent: Any, losses: Any, max_norm: Any) -> torch.Tensor:
        return torch.zeros(())


def test_a_method_may_take_its_steps_without_asking_for_losses() -> None:
    agent = made("dqn", [OwnStep()], prioritized=True).learn(150)
    assert agent.num_updates == 50


def test_exits_in_both_sub_policies_are_told_apart_in_the_shared_replay() -> None:
    small, large = Exits(budget=0.0, exit_after=(0, 1)), Exits(budget=1.0)
    agent = Asymmetric(
        pendulum(),
        **{**SMALL, "net_arch": (16, 16)},
        small_net_arch=(4, 4),
        small_methods=[small],
        large_methods=[large],
    ).learn(300)
    for own in (agent.small, agent.large):
        shares = [float(share) for share in own.replay_shares().values()]
        assert shares == pytest.approx((own.exits.counts / 300).tolist())


# ---- attributes -----------------------------------------------------------------------------------------------------


def test_an_error_in_a_property_says_what_is_missing() -> None:
    class Broken(SAC):
        @property
        def extra(self) -> Any:
            return self.what_is_missing

    with pytest.raises(AttributeError, match="what_is_missing"):
        _ = Broken(pendulum(), **SMALL).extra


def test_what_methods_offer_is_listed() -> None:
    assert "set_budget" in dir(SAC(pendulum(), methods=[Exits()], **SMALL))
    assert "set_budget" not in dir(SAC(pendulum(), **SMALL))


# ---- files ----------------------------------------------------------------------------------------------------------


def forged(path: Path, change: Any) -> Path:
    """Write the checkpoint at ``path`` again with another header, its checksum included."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()[TEXT])
    change(header)
    other = path.with_name("forged.safetensors")
    save_file(tensors, other, metadata=metadata_of(header))
    return other


@pytest.mark.parametrize("argument", ["meter", "seed", "self", "foo", "small_methods"])
def test_methods_under_another_argument_are_refused(argument: str, tmp_path: Path) -> None:
    agent = SAC(pendulum(), methods=[polyprune()], **SMALL)
    agent.save(path := tmp_path / "agent.safetensors")
    bad = forged(path, lambda header: header.update(methods={argument: header["methods"]["methods"]}))
    with pytest.raises(CheckpointError, match=f"stores methods under '{argument}': expected methods of SAC"):
        SAC.load(bad, pendulum())


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(meter={"x": 1}),
        lambda header: header.update(rng={"x": 1}),
        lambda header: header["structure"]["actor"].update({"net.0": [5, 4]}),
        lambda header: header["structure"].update({"actor": [1]}),
    ],
)
def test_a_refused_checkpoint_of_other_layers_leaves_the_agent_as_it_was(change: Any, tmp_path: Path) -> None:
    saved = SAC(pendulum(), **SMALL).learn(30)
    cut(saved)
    saved.save(path := tmp_path / "agent.safetensors", replay=True)
    bad = forged(path, change)
    agent = SAC(pendulum(), **{**SMALL, "seed": 0}).learn(20)
    before = [p.clone() for module in agent.modules.values() for p in module.parameters()]
    moments = [v.clone() for o in agent.optimizers.values() for s in o.state.values() for v in s.values()]
    totals, counters, rng = dict(agent.meter.totals), agent.num_timesteps, agent.rng.bit_generator.state
    with pytest.raises(CheckpointError):
        restore_agent(agent, bad)
    after = [p for module in agent.modules.values() for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    now = [v for o in agent.optimizers.values() for s in o.state.values() for v in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, now, strict=True))
    assert (dict(agent.meter.totals), agent.num_timesteps, agent.rng.bit_generator.state) == (totals, counters, rng)
    agent.learn(10)
