"""Spaces that cannot become a vector are refused by name, and what the message advises works."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agents import DQN, SAC
from budget_wrappers.errors import SpaceError
from budget_wrappers.wrappers import BudgetAwareObservation, vector
from tests.gymnasium_versions import sync


class Words(spaces.Space):
    """A space of another library, such as MiniGrid's missions: Gymnasium's default raises without a word."""

    def __init__(self) -> None:
        super().__init__((), str)

    def sample(self, *args: Any, **kwargs: Any) -> str:
        return "go"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


def place_and_words() -> spaces.Dict:
    return spaces.Dict(place=spaces.Discrete(4), image=spaces.Box(0, 255, (2, 2), np.uint8), mission=Words())


class Env(gym.Env):
    """Observes and acts in given spaces."""

    def __init__(self, observation: spaces.Space, action: spaces.Space | None = None) -> None:
        self.observation_space, self.action_space = observation, spaces.Discrete(2) if action is None else action
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.taken.append(action)
        return self.observation_space.sample(), 0.0, False, len(self.taken) % 5 == 0, {}


ODD = [
    place_and_words(),
    Words(),
    spaces.Tuple([spaces.Discrete(2), Words()]),
    spaces.Dict(inner=spaces.Dict(mission=Words())),
    spaces.Sequence(spaces.Discrete(2)),
]
names = pytest.mark.parametrize("space", ODD, ids=lambda space: type(space).__name__)


def raised(make: Any) -> Exception:
    try:
        make()
    except Exception as error:  # noqa: BLE001 - whichever it is, it is looked at
        return error
    raise AssertionError("nothing was raised")


@names
def test_a_budget_beside_a_space_that_cannot_be_flattened_is_refused_by_name(space: spaces.Space) -> None:
    error = raised(lambda: BudgetAwareObservation(Env(space), "budget"))
    assert isinstance(error, SpaceError)
    assert "cannot be flattened" in str(error)
    assert "flatten=False" in str(error)


@names
def test_the_budget_stands_beside_it_unflattened(space: spaces.Space) -> None:
    env = BudgetAwareObservation(Env(space), "budget", flatten=False)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_a_vector_refuses_it_by_name() -> None:
    envs = sync(
        [lambda: Env(spaces.Dict(seen=spaces.Box(0, 1, (2,)), words=spaces.Sequence(spaces.Discrete(2))))], "NextStep"
    )
    assert isinstance(raised(lambda: vector.BudgetAwareObservation(envs, "budget")), SpaceError)


def test_leaving_out_what_the_message_names_works() -> None:
    message = str(raised(lambda: BudgetAwareObservation(Env(place_and_words()), "budget")))
    assert "['mission'] out by gymnasium.wrappers.FilterObservation" in message
    kept = gym.wrappers.FilterObservation(Env(place_and_words()), ["place", "image"])
    assert BudgetAwareObservation(kept, "budget").reset(seed=0)[0].shape == (4 + 4 + 1,)


def advised(env: gym.Env, message: str, start: str) -> gym.Env:
    """Return what the code in a message makes of ``env``."""
    code = message[message.index(start) :]
    depths = np.cumsum([(letter == "(") - (letter == ")") for letter in code])
    opened = code.index("(")
    end = opened + int(np.flatnonzero(depths[opened:] == 0)[0])
    return eval(code[: end + 1], {"gymnasium": gym, "np": np, "env": env})


def test_an_agent_advises_what_it_can_use_then() -> None:
    env = Env(place_and_words())
    message = str(raised(lambda: DQN(env)))
    assert "FilterObservation" in message
    DQN(advised(env, message, "gymnasium.wrappers.FlattenObservation("), net_arch=(4,)).learn(3)


@pytest.mark.parametrize(
    "actions",
    [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2), spaces.MultiDiscrete([[2, 2], [1, 2]])],
    ids=["two", "bits", "matrix"],
)
def test_agents_do_not_send_each_other_actions_of_several_numbers(actions: spaces.Space) -> None:
    env = Env(spaces.Box(-1, 1, (2,)), actions)
    for agent in (DQN, SAC):
        message = str(raised(lambda agent=agent: agent(env)))
        assert "TransformAction" in message
        wrapped = advised(env, message, "gymnasium.wrappers.TransformAction(")
        DQN(wrapped, net_arch=(4,), learning_starts=1).learn(6)


def test_agents_advise_no_agent_for_actions_that_none_takes() -> None:
    for agent in (DQN, SAC):
        message = str(
            raised(lambda agent=agent: agent(Env(spaces.Box(-1, 1, (2,)), spaces.Dict(a=spaces.Discrete(2)))))
        )
        assert "use DQN" not in message
        assert "use SAC" not in message
        assert "TransformAction" in message
