"""What an update of BEXA-SAC costs beside one of plain SAC, and where its time goes.

    python -m benchmarks.bexa.update_cost

Both agents learn in one process on transitions of HalfCheetah-v5, as many updates in turns, each with one critic and
one actor update; what is reported is the median of the ratios within a round. A second pass times the parts of each: a
part's time is its own, without the parts that it calls. One thread.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import gymnasium as gym
import torch

from agents.methods.bexa import BexaSAC
from agents.sac import SAC
from benchmarks.card import RESULTS, store

ENVIRONMENT = "HalfCheetah-v5"
PARTS = {
    "replay": ("replay", "sample"),
    "actor forward": ("", "sample"),
    "target critics": ("target_critic", "smallest_of_own_actions"),
    "critic loss": ("critic", "squared_error"),
    "critic backward and step": ("critic_optimizer", "descend"),
    "critics of the actor's actions": ("critic", "smallest_of_own_actions"),
    "linear program": ("teacher", "target"),
    "gate loss": ("teacher", "losses"),
    "actor backward and step": ("actor_optimizer", "descend"),
    "temperature": ("", "_step_temperature"),
    "moving average": ("critic_average", "update"),
}
"""Methods that are timed, by the attribute of the agent that has them; the agent's own where that is empty."""


class Parts:
    """Exclusive seconds of nested calls, by name.

    Attributes:
        seconds: of each part so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with its time noted under ``name``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - start
                self.seconds[name] += taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        return call


def learned(agent_class: Any, units: int, steps: int) -> Any:
    """Return an agent that has taken ``steps`` steps, half of them with updates."""
    agent = agent_class(gym.make(ENVIRONMENT), net_arch=(units, units), learning_starts=steps // 2, seed=0)
    return agent.learn(steps)


def seconds_of(agent: Any, updates: int) -> float:
    """Return the seconds that ``updates`` updates take."""
    start = time.perf_counter()
    agent.train(updates)
    return time.perf_counter() - start


def milliseconds_of_parts(agent: Any, updates: int) -> dict[str, float]:
    """Return the milliseconds of one update that each part takes; what is in none of them is ``"rest"``."""
    parts = Parts()
    for name, (owner, method) in PARTS.items():
        if not owner or hasattr(agent, owner):
            holder = getattr(agent, owner) if owner else agent
            setattr(holder, method, parts.timed(name, getattr(holder, method)))
    parts.timed("rest", agent.train)(updates)
    for owner, method in PARTS.values():
        if not owner or hasattr(agent, owner):
            vars(getattr(agent, owner) if owner else agent).pop(method)
    return {name: 1e3 * seconds / updates for name, seconds in parts.seconds.items()}


def main() -> None:
    """Time both agents and store what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--updates", type=int, default=40, help="of each agent in a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agents = {"sac": learned(SAC, arguments.units, 600), "bexa-sac": learned(BexaSAC, arguments.units, 600)}
    taken: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(arguments.rounds):
        for name, agent in agents.items():
            taken[name].append(seconds_of(agent, arguments.updates))
    each = zip(taken["bexa-sac"], taken["sac"], strict=True)
    record = {
        "units": arguments.units,
        "exits": len(agents["bexa-sac"].policy.exits),
        "milliseconds": {name: 1e3 * median(values) / arguments.updates for name, values in taken.items()},
        "ratio": median(bexa / plain for bexa, plain in each),
        "parts": {name: milliseconds_of_parts(agent, 5 * arguments.updates) for name, agent in agents.items()},
    }
    store(RESULTS / "bexa" / "update_cost" / f"units{arguments.units}.json", record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
