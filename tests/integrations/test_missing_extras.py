"""An integration whose library is missing says what to install, whichever function is called first."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import MissingExtraError
from budget_wrappers.integrations import d3rlpy, minatar, rllib, torchrl

EPISODES = d3rlpy.Episodes(
    np.zeros((1, 4)), np.zeros(1, np.int64), np.zeros(1), np.zeros(1), np.ones(1, bool), np.zeros(1, bool), False, (), 2
)
CALLS: list[tuple[str, Callable[[], Any]]] = [
    ("torchrl", lambda: torchrl.metered(object())),
    ("torchrl", lambda: torchrl.as_sub_policy(object(), object())),
    ("torchrl", lambda: torchrl.wrap_env(gym.make("CartPole-v1"))),
    ("d3rlpy", lambda: d3rlpy.metered(object())),
    ("d3rlpy", lambda: d3rlpy.as_sub_policy(object())),
    ("d3rlpy", lambda: EPISODES.dataset()),
    ("ray", lambda: rllib.metered(object())),
    ("ray", lambda: rllib.as_sub_policy(object())),
    ("minatar", lambda: minatar.MinAtarEnv("breakout")),
    ("minatar", lambda: gym.make("budget/MinAtarFreeway-v0")),
]


@pytest.mark.parametrize(("extra", "call"), CALLS)
def test_missing_library_is_named_with_its_remedy(
    extra: str, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules, extra]:
        if name.partition(".")[0] == extra:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"needs {extra}.*pip install 'budget-wrappers\[{extra}\]'"):
        call()
