"""Replay: whatever was added, in whatever order, a sample is what a loop over the episodes would give."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.replay.buffers import ReplayBuffer
from agents.replay.dataset import Transitions
from budget_wrappers.errors import ConfigError

GAMMA = 0.5


@dataclass
class Happened:
    """One transition as a loop remembers it; ``number`` is its observation, ``number + 0.5`` its next one."""

    number: int
    stream: int
    reward: float
    terminated: bool
    truncated: bool


def history(rng: np.random.Generator, rounds: int, streams: int) -> Iterator[list[Happened]]:
    """Yield the transitions of each round; streams skip rounds at random, as a resetting environment does."""
    number = 0
    for _ in range(rounds):
        one_round = []
        for stream in range(streams):
            if rng.random() < 0.8:
                end = rng.random()
                one_round.append(Happened(number, stream, float(rng.integers(1, 9)), end < 0.15, 0.15 <= end < 0.3))
                number += 1
        yield one_round


def add(buffer: ReplayBuffer, rows: list[Happened]) -> None:
    """Store one round."""
    numbers = np.array([row.number for row in rows], np.float32)[:, None]
    buffer.add(
        numbers,
        numbers,
        np.array([row.reward for row in rows]),
        numbers + 0.5,
        np.array([row.terminated for row in rows]),
        np.array([row.truncated for row in rows]),
        tuple(row.stream for row in rows),
    )


def naive_window(happened: list[Happened], start: int, n_step: int, cuts: set[int]) -> tuple[float, float, float]:
    """Return reward, discount and next observation of the window at ``happened[start]``, one step after the other.

    Args:
        cuts: numbers before which everything was reset from outside.
    """
    reward, power, row = 0.0, 1.0, happened[start]
    for step in range(n_step):
        reward += power * row.reward
        power *= GAMMA
        if row.terminated or row.truncated or step == n_step - 1:
            break
        later = [other for other in happened[row.number + 1 :] if other.stream == row.stream]
        if not later or any(row.number < cut <= later[0].number for cut in cuts):
            break
        row = later[0]
    return reward, power * (not row.terminated), row.number + 0.5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    capacity=st.integers(4, 40),
    streams=st.integers(1, 4),
    n_step=st.integers(1, 4),
    rounds=st.integers(1, 30),
)
def test_windows_match_a_naive_loop(seed: int, capacity: int, streams: int, n_step: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(capacity, (1,), (1,), gamma=GAMMA, n_step=n_step)
    happened: list[Happened] = []
    cuts = set()
    for rows in history(rng, rounds, streams):
        if rows:
            add(buffer, rows)
            happened += rows
        if rng.random() < 0.1:
            buffer.forget_unfinished()
            cuts.add(len(happened))
    kept = happened[-capacity:]
    assert len(buffer) == len(kept)
    if not kept:
        return
    places = torch.tensor([row.number % capacity for row in kept])
    batch = buffer.gather(places)
    expected = np.array([naive_window(happened, row.number, n_step, cuts) for row in kept])
    assert batch.observation[:, 0].tolist() == batch.action[:, 0].tolist() == [row.number for row in kept]
    np.testing.assert_allclose(batch.reward, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(batch.discount, expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(batch.next_observation[:, 0], expected[:, 2])
    assert batch.weight.tolist() == [1.0] * len(kept)


def test_draws_are_uniform_over_what_is_held() -> None:
    buffer = ReplayBuffer(4, (1,), (1,))
    for number in range(6):
        add(buffer, [Happened(number, 0, 0.0, False, False)])
    index = buffer.sample(40_000, torch.Generator().manual_seed(0)).observation[:, 0].long()
    # 0 and 1 were overwritten by 4 and 5; a count of 10,000 has a standard deviation of √(40,000·¼·¾) = 87.
    counts = torch.bincount(index, minlength=6)
    assert counts[:2].tolist() == [0, 0]
    assert (counts[2:] - 10_000).abs().max() < 4 * 87


def test_one_generator_state_is_one_batch() -> None:
    buffer = ReplayBuffer(100, (1,), (1,))
    for number in range(50):
        add(buffer, [Happened(number, 0, 0.0, False, False)])
    one, other = (buffer.sample(20, torch.Generator().manual_seed(3)).index for _ in range(2))
    assert torch.equal(one, other)


def test_truncation_ends_a_window_and_keeps_the_bootstrap() -> None:
    buffer = ReplayBuffer(10, (1,), (1,), gamma=GAMMA, n_step=3)
    add(buffer, [Happened(0, 0, 1.0, False, False)])
    add(buffer, [Happened(1, 0, 2.0, False, True)])
    add(buffer, [Happened(2, 0, 4.0, True, False)])
    batch = buffer.gather(torch.arange(3))
    # 1 + ½·2, then ½² of the value after step 1; 2, then ½; 4, then nothing.
    assert batch.reward.tolist() == [2.0, 2.0, 4.0]
    assert batch.discount.tolist() == [0.25, 0.5, 0.0]
    assert batch.next_observation[:, 0].tolist() == [1.5, 1.5, 2.5]


def test_integers_are_stored_small_and_sampled_as_floats() -> None:
    buffer = ReplayBuffer(10, (2,), (), observation_dtype=torch.uint8, discrete=True)
    flag = np.array([False])
    buffer.add(np.array([[255, 3]]), np.array([2]), np.array([1.0]), np.array([[7, 0]]), flag, flag)
    batch = buffer.gather(torch.tensor([0]))
    assert buffer.observation.dtype == torch.uint8
    assert batch.observation.dtype == torch.float32
    assert batch.observation.tolist() == [[255.0, 3.0]]
    assert batch.action.dtype == torch.int64


def test_state_round_trip_keeps_every_window() -> None:
    rng = np.random.default_rng(0)
    buffer, other = (ReplayBuffer(20, (1,), (1,), gamma=GAMMA, n_step=3) for _ in range(2))
    for rows in history(rng, 30, 2):
        if rows:
            add(buffer, rows)
    other.load_state_dict({key: value.clone() for key, value in buffer.state_dict().items()})
    for one, two in zip(buffer.gather(torch.arange(20)), other.gather(torch.arange(20)), strict=True):
        assert torch.equal(one, two)
    for target in (buffer, other):
        target.forget_unfinished()
        add(target, [Happened(1000, 0, 1.0, False, False)])
    assert torch.equal(buffer.observation, other.observation)
    assert torch.equal(buffer.follower, other.follower)


def test_filling_at_once_equals_adding_one_by_one() -> None:
    rng = np.random.default_rng(1)
    rows = [row for one_round in history(rng, 30, 1) for row in one_round]
    rows[-1].truncated = not rows[-1].terminated
    numbers = np.array([row.number for row in rows], np.float32)[:, None]
    ends = {name: np.array([getattr(row, name) for row in rows]) for name in ("terminated", "truncated")}
    reward = np.array([row.reward for row in rows], np.float32)
    whole = Transitions(numbers, numbers, reward, numbers + 0.5, **ends, returns=np.zeros(1))
    filled, added = (ReplayBuffer(len(rows), (1,), (1,), n_step=3) for _ in range(2))
    filled.fill(whole)
    for row in rows:
        add(added, [row])
    for name in ReplayBuffer.arrays:
        assert torch.equal(getattr(filled, name), getattr(added, name)), name
    assert (filled.position, filled.size) == (added.position, added.size)


def test_window_longer_than_the_buffer_is_refused() -> None:
    with pytest.raises(ConfigError, match="buffer_size=3 holds no window of n_step=4"):
        ReplayBuffer(3, (1,), (1,), n_step=4)
