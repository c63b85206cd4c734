"""What an update costs is remembered for the agent that took it: never for an address, and anew when it changes."""

import gc

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import SAC
from budget_wrappers import get_meter

# SAC on Pendulum (O = 3, A = 1), 2×H, batch 8, on the fused CPU path, 2·MACs: the policy's forward at s and s' and its
# backward, both critics' and both targets' forwards, both critics' backward, and both critics' forward and the winning
# one's backward for the policy's step.
UPDATE = {64: 1_042_432, 8: 22_784}


def made(width: int, meter: str) -> SAC:
    return SAC(gym.make("Pendulum-v1"), meter=meter, net_arch=(width, width), batch_size=8, learning_starts=10)


def test_agents_of_alternating_widths_on_one_meter_are_charged_their_own_updates() -> None:
    meter = get_meter("alternating widths")
    for width in (64, 8) * 4:
        agent = made(width, "alternating widths")
        before = meter.totals["learn"]
        agent.learn(12)  # two updates: the first is counted, the second added
        assert meter.totals["learn"] - before == 2 * UPDATE[width]
        del agent
        gc.collect()


@pytest.mark.parametrize("width", UPDATE)
def test_an_update_is_counted_anew_after_the_structure_has_changed(width: int) -> None:
    agent = made(width, f"structure {width}").learn(12)
    before = agent.meter.totals["learn"]
    agent.structure_changed()  # nothing has: the same number, counted once more
    agent.train(1)
    assert agent.meter.totals["learn"] - before == UPDATE[width]


def test_costs_of_an_agent_that_is_gone_are_forgotten() -> None:
    meter = get_meter("forgotten")
    for _ in range(3):
        agent = made(8, "forgotten").learn(12)
        assert len(meter.learn_costs) == 1
        del agent
        gc.collect()
    assert meter.learn_costs == {}


def test_a_copy_of_an_agent_is_charged_alike() -> None:
    import copy

    agent = made(8, "copied").learn(12)
    twin = copy.deepcopy(agent)
    before = agent.meter.totals["learn"]
    twin.train(1)
    assert agent.meter.totals["learn"] - before == UPDATE[8]
    x = np.zeros((1, 3), np.float32)
    with torch.no_grad():
        twin.policy.net[0].bias.add_(1.0)
    assert not np.array_equal(agent.act(x, deterministic=True), twin.act(x, deterministic=True))
