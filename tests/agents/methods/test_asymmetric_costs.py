"""Costs of the published architectures, computed from the networks."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from agents.methods.asymmetric import Asymmetric
from agents.nets.mlp import MLP
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.surgery import keep_units, merged
from tests.agents.methods.test_asymmetric import make
from tests.agents.test_checkpoint import assert_same

# Observation and action sizes, units small and large; the published ratio; pure matrix products, worked out apart.
TABLE = {
    "MountainCarContinuous": (2, 1, 8, 64, 44.65),
    "Swimmer": (8, 2, 8, 256, 424.83),
    "Ant": (111, 8, 64, 256, 8.02),
    "FetchPickAndPlace": (31, 4, 32, 128, 9.40),
    "walker-stand": (24, 6, 8, 64, 18.11),
    "finger-spin": (9, 2, 8, 64, 29.08),
}


def products(inputs: int, actions: int, units: int) -> int:
    """Multiply-accumulates of a two-layer actor with two heads."""
    return inputs * units + units * units + 2 * units * actions


@pytest.mark.parametrize("task", TABLE)
def test_cost_of_the_large_policy_matches_the_published_table(task: str) -> None:
    inputs, actions, small, large, published = TABLE[task]

    class Shaped(gym.Env):
        observation_space = gym.spaces.Box(-1.0, 1.0, (inputs,), np.float32)
        action_space = gym.spaces.Box(-1.0, 1.0, (actions,), np.float32)

    agent = Asymmetric(Shaped(), small_net_arch=(small, small), net_arch=(large, large), buffer_size=10)
    flops = agent.options.choice_flops
    assert flops.tolist() == [2 * products(inputs, actions, small), 2 * products(inputs, actions, large)]
    assert agent.options.costs.tolist() == [1.0, flops[1] / flops[0]]
    # The published numbers add three scalar operations to each network.
    assert (flops[1] + 3) / (flops[0] + 3) == pytest.approx(published, abs=0.005)


def test_mountain_car_by_hand() -> None:
    # 2·64 + 64·64 + 2·64 = 4352 and 2·8 + 8·8 + 2·8 = 96 multiply-accumulates: (8704 + 3)/(192 + 3) = 44.65.
    assert (2 * products(2, 1, 64), 2 * products(2, 1, 8)) == (8704, 192)


def test_large_policy_must_cost_more() -> None:
    with pytest.raises(ConfigError, match=r"net_arch=\(4,\) costs 40 FLOPs .* than the 208 of small_net_arch"):
        make(small_net_arch=(8, 8), net_arch=(4,))
    with pytest.raises(ConfigError, match="small_net_arch"):
        make(small_net_arch=(8, 8))


# ---- layers of another size -----------------------------------------------------------------------------------------


def test_a_smaller_part_is_charged_and_bounded_by_what_it_costs_now_and_loads_alike(tmp_path: Path) -> None:
    # Large: 2·(3·8 + 8·8 + 8·2) = 208 before, 2·(3·4 + 4·8 + 8·2) = 120 with 4 units in the first layer. Master:
    # 2·(3·8 + 8·2) = 80 and 2·(3·4 + 4·2) = 40. Small: 40 as it was.
    agent = make().learn(30)
    assert (agent.flops_per_action, agent.options.selector_flops) == (208 + 80, 80)
    networks = [part for name, part in agent.own_modules.items() if name.startswith(("large", "master"))]
    layers = [part.linears for network in networks for part in network.modules() if isinstance(part, MLP)]
    agent.structure_changed(merged(*(keep_units(first, second, range(4)) for first, second, *_ in layers)))
    assert agent.options.choice_flops.tolist() == [40, 120]
    assert agent.options.costs.tolist() == [1.0, 3.0]
    assert (agent.flops_per_action, agent.options.selector_flops) == (120 + 40, 40)
    agent.learn(20)
    agent.save(tmp_path / "agent", replay=True)
    loaded = Asymmetric.load(tmp_path / "agent.safetensors", gym.make("Pendulum-v1"))
    assert (loaded.flops_per_action, loaded.options.selector_flops) == (160, 40)
    assert loaded.options.choice_flops.tolist() == [40, 120]
    assert_same(agent, loaded, tmp_path)
