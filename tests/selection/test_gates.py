"""What a gates' teacher refuses, before anything that it keeps has moved."""

from typing import Any, get_args

import pytest
import torch

from budget_wrappers.errors import ConfigError, NonFiniteError
from budget_wrappers.selection.gates import GateTeacher, GateTraining


@pytest.mark.parametrize("training", get_args(GateTraining))
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 2])
def test_values_that_are_not_finite_teach_nothing(training: Any, wrong: float, column: int) -> None:
    teacher = GateTeacher([1, 2, 3], 0.5, training)
    values = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    values[1, column] = wrong
    with pytest.raises(NonFiniteError, match=rf"values\[1, {column}\] is {wrong}"):
        teacher.target(values)
    assert teacher.reference is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("fraction", float("nan")),
        ("fraction", 1.5),
        ("fraction", -0.1),
        ("feedback", -1.0),
        ("feedback", float("nan")),
        ("feedback", float("inf")),
    ],
)
def test_numbers_that_no_teaching_follows_are_refused_at_once(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name}={value}: expected"):
        GateTeacher([1, 2], 0.0, **{name: value})
