"""Options bootstrap with their own duration; several replays are one to whoever saves them."""

from typing import Any

import numpy as np
import pytest
import torch

from agents.replay.buffers import ReplayBuffer
from agents.replay.option_replay import OptionReplay, Replays
from agents.replay.prioritized import PrioritizedReplay


def filled(replay: ReplayBuffer, exponent: Any = "duration") -> OptionReplay:
    """Options of 1, 2, 3 and 4 steps in a ring of 3: the first is overwritten. The third terminated."""
    options = OptionReplay(replay, exponent)
    for duration in (1, 2, 3, 4):
        options.add_option(
            np.full((1, 2), duration, np.float32),
            np.array([duration % 2]),
            np.array([10.0 * duration]),
            np.full((1, 2), -duration, np.float32),
            np.array([duration == 3]),
            np.array([False]),
            duration,
        )
    return options


def ring(kind: type = ReplayBuffer) -> ReplayBuffer:
    return kind(3, (2,), (), discrete=True, gamma=0.5)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplay])
@pytest.mark.parametrize(
    ("exponent", "of"), [("duration", {2: 0.25, 3: 0.0, 4: 0.0625}), ("one", {2: 0.5, 3: 0.0, 4: 0.5})]
)
def test_discount_is_that_of_each_option(kind: type, exponent: str, of: dict[int, float]) -> None:
    batch = filled(ring(kind), exponent).sample(40, torch.Generator().manual_seed(0))
    assert set(batch.observation[:, 0].tolist()) == {2.0, 3.0, 4.0}
    for observation, reward, discount in zip(batch.observation, batch.reward, batch.discount, strict=True):
        duration = int(observation[0])
        assert (reward, discount) == (10 * duration, of[duration])


def test_state_survives(tmp_path: Any) -> None:
    one = Replays({"a": filled(ring()), "b": filled(ring(PrioritizedReplay))})
    other = Replays({"a": OptionReplay(ring(), "duration"), "b": OptionReplay(ring(PrioritizedReplay), "duration")})
    other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
    for name in ("a", "b"):
        first, second = (replays.replays[name].sample(20, torch.Generator().manual_seed(1)) for replays in (one, other))
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))


def test_annealed_exponent_reaches_the_replay_inside() -> None:
    inside = ring(PrioritizedReplay)
    OptionReplay(inside, "duration").beta = 0.75
    assert inside.beta == 0.75
