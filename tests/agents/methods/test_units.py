"""Units that learn whether they are needed, in our agents: textbook until then, within the size, resumed exactly."""

import copy
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import DQN, SAC, TD3, Exits, Units
from agents.loop.callbacks import Callback
from agents.loop.checkpoint import restore_agent, save_agent
from budget_wrappers.errors import CheckpointError, ComputeWarning, InfeasibleBudgetError
from budget_wrappers.metering import count_flops
from budget_wrappers.metering.device_profile import DeviceProfile
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.agents.methods import combining
from tests.agents.methods.combining import AGENTS, made
from tests.agents.test_damaged_checkpoint import crafted

STEPS = 160


def units(**settings: Any) -> Units:
    """Return units that learn from step 48 to step 128 and are removed every tenth update."""
    return combining.units(**{"prune_every": 10, "max_parameters": 60, **settings})


def quick(name: str, methods: list[Any]) -> Any:
    """Return an agent of 2×8 units, 122 parameters for SAC on Pendulum, whose episodes have 20 steps at most."""
    agent = made(name, methods, learning_starts=20, batch_size=8, net_arch=(8, 8))
    if not agent.offline:
        agent.set_env(gym.make(AGENTS[name][1], max_episode_steps=20))
    return agent


LATE: dict[str, Any] = {"learn_from": 0.98, "fix_from": 0.99}
"""Of a run in which nothing begins to learn before the end."""


def every_tensor(agent: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value for name, part in agent.own_modules.items() for key, value in part.state_dict().items()
    }


def assert_equal(one: Any, other: Any) -> None:
    mine, theirs = every_tensor(one), every_tensor(other)
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    assert one.rng.bit_generator.state == other.rng.bit_generator.state
    assert torch.equal(one.generator.get_state(), other.generator.get_state())


# ---- frozen means textbook ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_while_theta_are_1_and_fixed_an_agent_is_the_plain_one_to_the_bit(name: str) -> None:
    given = {} if AGENTS[name][0].discrete else {"critic_unit_penalty": 1e-6}
    agent, plain = quick(name, [units(**LATE, **given)]), quick(name, [])
    for one in (agent, plain):
        one.learn(STEPS, callback=lambda own: own.num_timesteps < 0.5 * STEPS)
    assert agent.method("units").update_kind(agent) == "untouched"
    assert_equal(agent, plain)
    assert agent.meter.totals == plain.meter.totals


# ---- the size -------------------------------------------------------------------------------------------------------


def limits() -> list[tuple[str, str, int]]:
    """Return a dozen random limits for each of three environments."""
    rng, found = np.random.default_rng(0), []
    for name in ("sac", "td3", "dqn"):
        # Of 2×8 units: SAC on Pendulum 122 parameters and 208 FLOPs, TD3 113 and 192, DQN on CartPole 130 and 224.
        for key, low, high in (("max_parameters", 12, 120), ("max_flops", 14, 200)):
            found += [(name, key, int(limit)) for limit in rng.integers(low, high, 6)]
    return found


@pytest.mark.parametrize(("name", "key", "limit"), limits())
def test_a_network_is_never_above_the_size_that_was_asked_for(name: str, key: str, limit: int) -> None:
    agent = quick(name, [units(**{"max_parameters": 0, key: limit})]).learn(80)
    parameters = sum(parameter.numel() for parameter in agent.actor.parameters())
    flops = count_flops(agent.actor, torch.zeros(1, *agent.observation_shape))
    assert {"max_parameters": parameters, "max_flops": flops}[key] <= limit
    assert agent.parameters_of() == parameters
    assert agent.flops_per_action == flops


def test_a_latency_is_kept_by_the_fit_of_a_device(tmp_path: Path) -> None:
    """10 µs a layer and 50 ns a product: 3·w₁ + w₁·w₂ + 2·w₂ products; 2×8 units take 30 + .05·104 = 35.2 µs."""
    path = tmp_path / "device.json"
    DeviceProfile(0.0, 10.0, 0.0, 0.05, "numpy", 1, 0.0, 0.0, 45, 15, {}).save(path)
    agent = quick("sac", [units(max_parameters=0, max_latency_us=32.0, device_profile=str(path))]).learn(STEPS)
    first, second = agent.units_of()
    assert 30 + 0.05 * (3 * first + first * second + 2 * second) <= 32.0
    with pytest.raises(InfeasibleBudgetError, match=r"30 microseconds: expected 30\.3 at least"):
        quick("sac", [units(max_parameters=0, max_latency_us=30.0, device_profile=str(path))])


def test_a_policy_for_another_device_is_loaded_from_its_file_alone(tmp_path: Path) -> None:
    path, saved = tmp_path / "device.json", tmp_path / "agent.safetensors"
    DeviceProfile(0.0, 10.0, 0.0, 0.05, "numpy", 1, 0.0, 0.0, 45, 15, {}).save(path)
    make = functools.partial(units, max_parameters=0, max_latency_us=32.0, device_profile=str(path))
    for steps in (STEPS, 100):
        agent = quick("sac", [make()]).learn(STEPS, callback=lambda own, end=steps: own.num_timesteps < end)
        agent.save(saved)
        path.unlink()
        again = SAC.load(saved, gym.make("Pendulum-v1"))
        assert again.units_of() == agent.units_of()
        observation = np.linspace(-1, 1, 3, dtype=np.float32)
        assert np.array_equal(again.predict(observation)[0], agent.predict(observation)[0])
        if steps == STEPS:
            again.learn(10)  # all is decided
        else:
            with pytest.raises(CheckpointError, match="cannot read a device's profile"):
                again.learn(60)
        DeviceProfile(0.0, 50.0, 0.0, 0.05, "numpy", 1, 0.0, 0.0, 45, 15, {}).save(path)  # slower than what was asked
        assert SAC.load(saved, None).units_of() == agent.units_of()
        DeviceProfile(0.0, 10.0, 0.0, 0.05, "numpy", 1, 0.0, 0.0, 45, 15, {}).save(path)
    with pytest.raises(CheckpointError, match="cannot read a device's profile"):
        quick("sac", [make(device_profile=str(tmp_path / "none.json"))])


def test_a_run_without_updates_in_its_last_part_keeps_the_size_and_says_so() -> None:
    agent = quick("sac", [units()])
    with pytest.warns(ComputeWarning, match="were learning when training ended.*the size was kept"):
        agent.learn(60, callback=lambda own: _learns_only_until(own, 40))
    assert agent.parameters_of() <= 60
    agent = quick("sac", [units()])
    with pytest.warns(ComputeWarning, match="were untouched when training ended.*has all its units"):
        agent.learn(15)
    assert agent.units_of() == [8, 8]
    agent.learn(STEPS)  # begins to learn now
    assert agent.parameters_of() <= 60


def _learns_only_until(agent: Any, step: int) -> bool:
    if agent.num_timesteps >= step:
        agent.train = lambda updates: None
    return True


@pytest.mark.parametrize(
    "change", [{"stage": "weird"}, {"first": -1.0}, {"log_penalty": 1e6}, {"share": 2.0}, {"first": "many"}]
)
def test_an_altered_state_of_units_is_refused_and_leaves_the_agent_as_it_was(
    change: dict[str, Any], tmp_path: Path
) -> None:
    saved, path = tmp_path / "saved.safetensors", tmp_path / "crafted.safetensors"
    quick("dqn", [units()]).learn(100, callback=lambda own: own.num_timesteps < 60).save(saved)
    agent = quick("dqn", [units()]).learn(30, callback=lambda own: own.num_timesteps < 25)
    plain = agent.plain_state()
    crafted(saved, path, lambda header, tensors: header["plain"]["units"]["q_network"].update(change))
    with pytest.raises(CheckpointError):
        restore_agent(agent, path)
    assert agent.plain_state() == plain

    def no_probability(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors["module/units.q_network/theta.0"].fill_(7.0)

    with pytest.raises(CheckpointError, match=r"θ = 7\.0"):
        restore_agent(agent, crafted(saved, path, no_probability))


def test_critics_have_a_limit_of_their_own_and_shrink_apart() -> None:
    agent = quick("sac", [units(max_critic_parameters=150)]).learn(STEPS)
    assert sum(parameter.numel() for parameter in agent.critic.parameters()) <= 150  # of 2·121
    assert [m.sizes for m in agent.critic.members] == [m.sizes for m in agent.target_critic.members]
    assert agent.units_of("critic") == [width for m in agent.critic.members for width in m.sizes[1:-1]]


def test_critics_without_a_price_keep_their_units() -> None:
    agent = quick("sac", [units()]).learn(STEPS)
    assert [member.sizes for member in agent.critic.members] == [(4, 8, 8, 1)] * 2


@pytest.mark.parametrize(
    ("name", "key", "limit", "least"),
    [
        # One unit in each hidden layer: 4 + 2 + 2·2 = 10 parameters, 2·(3 + 1 + 2) = 12 FLOPs of SAC on Pendulum;
        # DQN on CartPole 5 + 2 + 2·2 = 11; each twin 5 + 2 + 2 = 9.
        ("sac", "max_parameters", 9, "10"),
        ("sac", "max_flops", 11, "12"),
        ("dqn", "max_parameters", 10, "11"),
        ("sac", "max_critic_parameters", 17, "18"),
    ],
)
def test_less_than_the_smallest_network_is_refused_before_training(name: str, key: str, limit: int, least: str) -> None:
    with pytest.raises(InfeasibleBudgetError, match=f"{limit} .*: expected {least} at least"):
        made(name, [units(**{"max_parameters": 0, key: limit})])
    made(name, [units(**{"max_parameters": 0, key: limit + 1})])


# ---- accounts -------------------------------------------------------------------------------------------------------


def test_what_is_charged_is_a_fresh_count_before_and_after_each_removal() -> None:
    """Of actions in ``info["cost"]``, and of updates: twice as much backwards, counted anew on a copy."""
    env = RecordComputeStatistics(gym.make("Pendulum-v1"), meter="laws.units")
    agent = SAC(env, meter="laws.units", methods=[units()], net_arch=(8, 8), batch_size=8, learning_starts=20, seed=3)
    seen: list[tuple[tuple[int, ...], float, int]] = []
    before = {"learn": 0, "updates": 0}

    def look(own: Any) -> None:
        spent, updates = own.meter.totals["learn"] - before["learn"], own.num_updates - before["updates"]
        before.update(learn=own.meter.totals["learn"], updates=own.num_updates)
        fresh = count_flops(own.actor, torch.zeros(1, 3))
        with own.meter.paused():
            own.predict(np.zeros(3, dtype=np.float32))
        assert own.flops_per_action == fresh
        if updates == 1:
            seen.append((tuple(own.units_of()), spent, fresh))

    agent.learn(STEPS, callback=look)
    by_size = {sizes: {spent for other, spent, _ in seen if other == sizes} for sizes, _, _ in seen}
    assert len(by_size) >= 3
    # The first update of a size is one in which the size before was charged; no third number stands there.
    assert all(len(spent) <= 2 for spent in by_size.values())
    plain = SAC(gym.make("Pendulum-v1"), net_arch=agent.units_of(), critic_net_arch=(8, 8), batch_size=8)
    plain.config = agent.config
    fresh = plain.meter.totals["learn"]
    plain.replay = agent.replay
    plain.train(1)
    assert plain.meter.totals["learn"] - fresh in by_size[tuple(agent.units_of())]


def test_info_has_the_cost_of_the_smaller_network() -> None:
    env = RecordComputeStatistics(gym.make("Pendulum-v1"), meter="laws.units.info")
    agent = SAC(env, meter="laws.units.info", methods=[units()], net_arch=(8, 8), batch_size=8, learning_starts=20)
    agent.learn(STEPS)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation)
    info = env.step(action)[4]
    assert info["cost"] == agent.flops_per_action == count_flops(agent.actor, torch.zeros(1, 3)) < 208


# ---- targets --------------------------------------------------------------------------------------------------------


def test_targets_theta_follow_as_their_weights_do_and_lose_the_same_units() -> None:
    agent = quick("sac", [units(critic_unit_penalty=1e-4)])
    pruner = agent.method("units")._pruned[1].pruner
    lagging: list[bool] = []

    def look(own: Any) -> None:
        if pruner.stage == "learning":
            mine, theirs = (torch.cat(list(g.theta)).detach() for g in (pruner.gates, pruner.target_gates[0]))
            assert mine.shape == theirs.shape
            lagging.append(not torch.equal(mine, theirs))

    agent.learn(STEPS, callback=look)
    assert any(lagging)
    assert pruner.target_gates[0].counts() == pruner.gates.counts()


# ---- checkpoints ----------------------------------------------------------------------------------------------------


class Saves(Callback):
    """Saves once, at the first end of an episode (offline: update) after some steps."""

    def __init__(self, path: Path, steps: float) -> None:
        self.path, self.steps = path, steps

    def on_step(self, agent: Any) -> bool:
        if agent.offline:
            self.on_episode_end(agent, {})
        return True

    def on_episode_end(self, agent: Any, episode: Any) -> None:
        if agent.num_timesteps >= self.steps and not self.path.exists():
            save_agent(agent, self.path, replay=True)


@pytest.mark.parametrize(("name", "methods"), [*((name, "units") for name in AGENTS), ("sac", "exits+units+polyprune")])
def test_an_agent_that_is_loaded_goes_on_to_the_same_numbers(name: str, methods: str, tmp_path: Path) -> None:
    """In each stage: before θ learn, while units are removed, when most are gone, and when all is fixed."""

    given = {"units": [units], "exits+units+polyprune": [lambda: Exits(budget=0.4), units, combining.polyprune]}

    def anew() -> Any:
        return quick(name, [make() for make in given[methods]])

    paths = [tmp_path / f"{at}.safetensors" for at in (0.2, 0.5, 0.7, 0.85)]
    whole = anew()
    whole.learn(STEPS, callback=[Saves(path, STEPS * float(path.stem)) for path in paths])
    for path in paths:
        again = anew()
        restore_agent(again, path)
        assert again.num_timesteps < STEPS
        again.learn(STEPS - again.num_timesteps)
        assert_equal(again, whole)
        assert again.plain_state() == whole.plain_state()
        assert [again.meter.totals[phase] for phase in ("act", "learn")] == [
            whole.meter.totals[phase] for phase in ("act", "learn")
        ]


def test_a_pruned_agent_is_loaded_from_its_file_alone_and_is_smaller(tmp_path: Path) -> None:
    agent, plain = quick("td3", [units(critic_unit_penalty=1e-4)]).learn(STEPS), quick("td3", []).learn(STEPS)
    paths = [tmp_path / "pruned.safetensors", tmp_path / "plain.safetensors"]
    for one, path in zip((agent, plain), paths, strict=True):
        one.save(path)
    again = TD3.load(paths[0], None)
    assert again.units_of() == agent.units_of()
    observation = np.linspace(-1, 1, 3, dtype=np.float32)
    assert np.array_equal(again.predict(observation)[0], agent.predict(observation)[0])
    assert sum(t.numel() for t in every_tensor(again).values()) < sum(t.numel() for t in every_tensor(plain).values())


def test_both_streams_of_a_dueling_network_follow_its_trunk(tmp_path: Path) -> None:
    def anew() -> Any:
        settings = {"dueling": True, "prioritized": True, "train_freq": 1, "learning_starts": 20, "batch_size": 8}
        return DQN(gym.make("CartPole-v1"), methods=[units(max_parameters=80)], net_arch=(8, 8), **settings)

    agent, path = anew().learn(STEPS), tmp_path / "agent.safetensors"
    trunk, value, advantage = agent.units_of()[0], agent.q_network.value.sizes, agent.q_network.advantage.sizes
    assert trunk == value[0] == advantage[0] < 8
    agent.save(path)
    again = DQN.load(path, None)
    observation = np.linspace(-1, 1, 4, dtype=np.float32)
    assert np.array_equal(again.predict(observation)[0], agent.predict(observation)[0])

    def apart(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        header["structure"]["q_network"]["trunk.0.0"][1] += 1
        for key in ("weight", "bias"):
            name = f"module/q_network/trunk.0.0.{key}"
            tensors[name] = torch.cat([tensors[name], tensors[name][:1]])

    with pytest.raises(CheckpointError, match="do not fit each other"):
        DQN.load(crafted(path, tmp_path / "crafted.safetensors", apart), None)


@pytest.mark.parametrize("where", ["module/actor/net.0.weight", "module/units.actor/theta.0"])
def test_a_file_whose_structure_and_tensors_disagree_is_refused_and_leaves_the_agent_as_it_was(
    where: str, tmp_path: Path
) -> None:
    saved, path = tmp_path / "saved.safetensors", tmp_path / "crafted.safetensors"
    quick("sac", [units()]).learn(STEPS).save(saved)

    def cut(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors[where] = tensors[where][:-1].clone()

    crafted(saved, path, cut)
    agent = quick("sac", [units()]).learn(100)
    before, plain = copy.deepcopy(every_tensor(agent)), agent.plain_state()
    with pytest.raises(CheckpointError):
        restore_agent(agent, path)
    assert all(torch.equal(value, before[key]) for key, value in every_tensor(agent).items())
    assert agent.plain_state() == plain
    agent.learn(50)  # its gates, optimizers and targets go on
