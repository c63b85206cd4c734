"""What outputs mean as actions, in numpy for acting and in torch for fitting, is one and the same."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.policies.outputs import ActionMap

BOX = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)


def test_squash_is_tanh_between_the_bounds() -> None:
    output = np.array([[0.0, np.arctanh(0.5)]], dtype=np.float32)
    np.testing.assert_allclose(ActionMap.of(BOX, "squash").actions(output), [[0.0, 0.75]], rtol=1e-6)


def test_clip_leaves_what_is_inside_alone() -> None:
    output = np.array([[-3.0, 0.25]], dtype=np.float32)
    assert ActionMap.of(BOX, "clip").actions(output).tolist() == [[-2.0, 0.25]]


def test_argmax_counts_from_the_first_action_of_the_space() -> None:
    assert ActionMap.of(spaces.Discrete(3, start=5)).actions(np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist() == [
        6,
        5,
    ]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=2), st.sampled_from(["squash", "clip"]))
def test_compared_actions_are_those_of_acting_in_units_of_the_bounds(output: list[float], meaning: Any) -> None:
    action_map = ActionMap.of(BOX, meaning)
    acted = action_map.actions(np.array([output], dtype=np.float32))[0]
    unit = action_map.compared(torch.tensor([output]))[0].numpy()
    middle, half = np.array([0.0, 0.5]), np.array([2.0, 0.5])
    np.testing.assert_allclose(middle + half * unit, acted, atol=1e-5)


def test_what_lies_beyond_the_bound_where_it_belongs_lies_well_and_is_drawn_back_from_elsewhere() -> None:
    action_map = ActionMap.of(BOX, "clip")  # middle (0, 0.5), half the range (2, 0.5)
    output = torch.tensor([[3.0, 3.0], [3.0, 3.0], [-3.0, 0.75]], requires_grad=True)
    wanted = torch.tensor([[9.0, 2.0], [1.0, 0.5], [2.0, -7.0]])
    difference = action_map.difference(output, wanted)
    # Scaled: 1.5 and 5 for (1, 1), (0.5, 0); −1.5 and 0.5 for (1, −1).
    assert difference.tolist() == [[0.0, 0.0], [1.0, 5.0], [-2.5, 1.5]]
    (gradient,) = torch.autograd.grad(difference.sum(), output)
    assert gradient.tolist() == [[0.0, 0.0], [0.5, 2.0], [0.5, 2.0]]  # one over half the range


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=2),
    st.lists(st.floats(-5, 5), min_size=2, max_size=2),
    st.sampled_from(["squash", "clip"]),
)
def test_a_difference_is_zero_exactly_where_actions_are_the_same(one: Any, other: Any, meaning: Any) -> None:
    action_map = ActionMap.of(BOX, meaning)
    output, wanted = torch.tensor([one], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)
    same = action_map.compared(output) == action_map.compared(wanted)
    assert torch.equal(action_map.difference(output, wanted) == 0, same)


@pytest.mark.parametrize("action_map", [ActionMap.of(BOX, "squash"), ActionMap.of(spaces.Discrete(4, start=1))])
def test_a_map_is_plain_data_and_back(action_map: ActionMap) -> None:
    assert ActionMap.from_dict(json.loads(json.dumps(dataclasses.asdict(action_map)))) == action_map


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 'squash'"):
        ActionMap.of(BOX)
    with pytest.raises(SpaceError, match="Discrete space or a Box"):
        ActionMap.of(spaces.MultiDiscrete([2, 2]))
    with pytest.raises(ConfigError, match="bounds"):
        ActionMap("squash")
    with pytest.raises(ConfigError, match="bounds"):
        ActionMap("clip", (1.0,), (0.0,))
    with pytest.raises(ConfigError, match="meaning"):
        ActionMap("softmax")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="meaning, low, high, start and dtype"):
        ActionMap.from_dict({"meaning": "argmax"})
