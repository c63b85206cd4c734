"""PettingZoo's own tests accept every wrapper on environments of four families, and hear nothing new."""

import warnings
from collections.abc import Callable
from typing import Any

import pettingzoo
import pytest
from mpe2 import simple_spread_v3

from tests.wrappers.multi_agent.environments import STACKS, Team, turns

with warnings.catch_warnings():  # it imports environments in a way that PettingZoo itself deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import api_test, parallel_api_test

PARALLEL: dict[str, Callable[[], Any]] = {
    "team": lambda: Team(deaths={"agent_1": 2}),
    "rps": lambda: pettingzoo.make("parallel", "classic/rps-v2", max_cycles=5),
    "simple_spread": lambda: simple_spread_v3.parallel_env(max_cycles=5),
    "pursuit": lambda: pettingzoo.make("parallel", "sisl/pursuit-v5", max_cycles=5, n_pursuers=3),
    "pistonball": lambda: pettingzoo.make("parallel", "butterfly/pistonball-v6", max_cycles=5, n_pistons=4),
}
AEC: dict[str, Callable[[], Any]] = {
    "team": lambda: turns(deaths={"agent_1": 2}),
    "rps": lambda: pettingzoo.make("aec", "classic/rps-v2", max_cycles=5),
    "tictactoe": lambda: pettingzoo.make("aec", "classic/tictactoe-v3"),
    "connect_four": lambda: pettingzoo.make("aec", "classic/connect_four-v3"),
    "simple_spread": lambda: simple_spread_v3.env(max_cycles=5),
    "pursuit": lambda: pettingzoo.make("aec", "sisl/pursuit-v5", max_cycles=5, n_pursuers=3),
}
# About spaces that BudgetAwareObservation makes a Dict of, an environment's own lists of what is excused for it, and
# what random actions happened to play.
EXPECTED = ("probably should be", "not a NumPy array", "Observations are different shapes", "is all zeros")


def heard(test: Callable[..., None], env: Any) -> set[str]:
    """Return the warnings of one of PettingZoo's tests, and whatever making the environment warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        test(env, num_cycles=12)
    return {str(warning.message) for warning in caught}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
@pytest.mark.parametrize("make", PARALLEL.values(), ids=PARALLEL.keys())
def test_pettingzoo_accepts_parallel_environments(make: Callable[[], Any], stack: Callable[[Any], Any]) -> None:
    new = heard(parallel_api_test, stack(make())) - heard(parallel_api_test, make())
    assert [message for message in new if not any(known in message for known in EXPECTED)] == []


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
@pytest.mark.parametrize("make", AEC.values(), ids=AEC.keys())
def test_pettingzoo_accepts_aec_environments(make: Callable[[], Any], stack: Callable[[Any], Any]) -> None:
    new = heard(api_test, stack(make())) - heard(api_test, make())
    assert [message for message in new if not any(known in message for known in EXPECTED)] == []
