import numpy as np
import pytest
from scipy.optimize import minimize

from agents.report.labels import place_labels, spread

FRAME = (0.0, 0.0, 1000.0, 600.0)
NOTHING = np.empty((0, 2))


def boxes_meet(centres: np.ndarray, sizes: np.ndarray) -> bool:
    return any(
        (np.abs(centres[i] - centres[j]) < (sizes[i] + sizes[j]) / 2).all()
        for i in range(len(centres))
        for j in range(i)
    )


def test_a_lone_label_stands_right_of_its_point() -> None:
    # Gap 10, then half the width of 80.
    centres = place_labels(np.array([[500.0, 300.0]]), np.array([[80.0, 20.0]]), NOTHING, FRAME)
    np.testing.assert_array_equal(centres, [[550.0, 300.0]])


def test_labels_stay_inside_the_frame() -> None:
    anchors = np.array([[995.0, 300.0], [5.0, 5.0], [500.0, 598.0]])
    sizes = np.full((3, 2), (120.0, 30.0))
    centres = place_labels(anchors, sizes, NOTHING, FRAME)
    assert (centres - sizes / 2 >= 0).all()
    assert (centres + sizes / 2 <= FRAME[2:]).all()


def test_labels_of_crowded_points_do_not_meet() -> None:
    anchors = np.array([500.0, 300.0]) + np.random.default_rng(0).normal(scale=12, size=(7, 2))
    sizes = np.full((7, 2), (110.0, 30.0))
    assert not boxes_meet(place_labels(anchors, sizes, anchors, FRAME), sizes)


def test_labels_leave_obstacles_visible() -> None:
    # A vertical line of marks right of the point: the label goes left.
    marks = np.column_stack([np.full(60, 530.0), np.linspace(0, 600, 60)])
    centres = place_labels(np.array([[500.0, 300.0]]), np.array([[80.0, 20.0]]), marks, FRAME)
    assert centres[0, 0] < 500


def test_levels_far_enough_apart_stay() -> None:
    np.testing.assert_array_equal(spread(np.array([30.0, 0.0, 90.0]), 20.0), [30.0, 0.0, 90.0])


def test_two_equal_levels_part_symmetrically() -> None:
    np.testing.assert_array_equal(spread(np.array([50.0, 50.0]), 20.0), [40.0, 60.0])


@pytest.mark.parametrize("seed", range(3))
def test_spread_matches_oracle(seed: int) -> None:
    levels = np.random.default_rng(seed).uniform(0, 60, size=5)
    order = np.argsort(levels)
    apart = {"type": "ineq", "fun": lambda x: np.diff(x[order]) - 14}
    start = levels + 14 * np.argsort(order)
    oracle = minimize(lambda x: np.sum((x - levels) ** 2), start, constraints=[apart], method="SLSQP")
    np.testing.assert_allclose(spread(levels, 14.0), oracle.x, atol=1e-3)
