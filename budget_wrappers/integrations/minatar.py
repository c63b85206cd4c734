"""MinAtar: five small Atari-like games as Gymnasium environments that any agent with discrete actions can learn.

The environments are ``budget/MinAtarAsterix-v0``, ``…Breakout-v0``, ``…Freeway-v0``, ``…Seaquest-v0`` and
``…SpaceInvaders-v0``. The command line knows these ids: ``budget train dqn --env budget/MinAtarBreakout-v0``. A Python
program registers them by importing this module, or names the module in the id::

    env = gym.make("budget_wrappers.integrations.minatar:budget/MinAtarBreakout-v0")

Importing this module does not import MinAtar; making an environment loads one file of it, which needs NumPy only. So
``pip install --no-deps MinAtar`` is enough, although MinAtar's metadata asks for pandas and seaborn, too.

Source: "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning Experiments" (Young and
Tian 2019). MinAtar is distributed under the GPL.
"""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from budget_wrappers.arguments import a_flag, a_number, refuse
from budget_wrappers.errors import SpaceError
from budget_wrappers.integrations.extras import library

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
"""The games under MinAtar's own names."""

MAX_EPISODE_STEPS = 10_000
"""The time limit of the registered environments, in steps.

MinAtar has none, and a policy that never misses the ball plays one episode of Breakout for ever. The limit is four
times the 2,500 frames after which Freeway ends by itself, so that it cuts off very good policies only.
"""

N_ACTIONS = 6
"""MinAtar's actions of every game, numbered from 0: none, left, up, right, down, fire."""

PIXELS = 16
"""The side of one cell of the grid in a rendered image, in pixels."""

# Black where no channel is active, then one colour a channel; Seaquest has ten, the most.
COLOURS = np.array(
    [
        (0, 0, 0),
        (86, 180, 233),
        (230, 159, 0),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
        (255, 255, 255),
        (150, 150, 150),
        (170, 60, 60),
    ],
    dtype=np.uint8,
)


class MinAtarEnv(gym.Env):
    """A game of MinAtar whose episodes depend on the seed and the actions alone.

    The observation tells for each cell of a 10×10 grid which of the game's channels (ball, paddle, …) are active there,
    1 or 0. The reward is MinAtar's score, and an episode terminates where the game ends it.

    Every random number comes from ``np_random``: the start, what appears on the way, and whether an action is replaced
    by the one before it. ``reset(seed=s)`` starts the same episode whatever was played before; the last action and the
    difficulty begin anew at each reset. ``reset()`` continues with the generator's next numbers. MinAtar's own
    ``Environment.seed(s)`` uses another kind of generator, so that equal seeds give other episodes there.

    Attributes:
        game: MinAtar's name of the game.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        game: str,
        flatten: bool = True,
        minimal_actions: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Make the game.

        Args:
            game: one of ``GAMES``.
            flatten: whether an observation is one vector, (10·10·channels,), as the agents of this package take it;
                otherwise it is the grid, (10, 10, channels). Both are float32.
            minimal_actions: whether the actions are only those that have an effect of their own in this game, between
                three and six; otherwise all six of MinAtar.
            sticky_action_prob: the probability with which the game takes the action before instead of the one given.
            difficulty_ramping: whether the game becomes harder during an episode; Breakout and Freeway never do.
            render_mode: ``"rgb_array"`` or ``None``.

        Raises:
            ConfigError: an argument outside these bounds.
            MissingExtraError: MinAtar is not installed.
        """
        if game not in GAMES:
            refuse("game", game, f"one of {', '.join(GAMES)}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            refuse("render_mode", render_mode, "'rgb_array' or None")
        self.game, self.render_mode = game, render_mode
        self._flatten = a_flag("flatten", flatten)
        self._sticky_action_prob = a_number(
            "sticky_action_prob", sticky_action_prob, "a probability, from 0 to 1", lambda number: 0 <= number <= 1
        )
        self._game = game_class(game)(ramping=a_flag("difficulty_ramping", difficulty_ramping))
        minimal = a_flag("minimal_actions", minimal_actions)
        self._actions = tuple(self._game.minimal_action_set()) if minimal else tuple(range(N_ACTIONS))
        self._last_action = 0
        shape = tuple(self._game.state_shape())
        self.observation_space = spaces.Box(0, 1, (int(np.prod(shape)),) if self._flatten else shape, np.float32)
        self.action_space = spaces.Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; ``options`` are not used.

        Returns:
            The observation, and an empty ``info``.
        """
        super().reset(seed=seed)
        self._share_generator()
        self._game.reset()
        # MinAtar's own Environment keeps it, so that its first steps depend on the episode before.
        self._last_action = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play one frame.

        Returns:
            The observation, the reward, whether the game has ended, ``False`` and an empty ``info``.

        Raises:
            SpaceError: an action outside the action space.
        """
        if not self.action_space.contains(action):
            raise SpaceError(f"action={action!r}: expected a whole number from 0 to {len(self._actions) - 1}")
        # In the order of MinAtar's Environment.act: one number is drawn each step, whatever the probability.
        if self._game.random.rand() >= self._sticky_action_prob:
            self._last_action = self._actions[int(action)]
        reward, terminated = self._game.act(self._last_action)
        return self._observation(), float(reward), bool(terminated), False, {}

    def render(self) -> np.ndarray | None:
        """Return an image of the game, (160, 160, 3) in uint8; ``None`` without a render mode, with a warning.

        Each channel has a fixed colour. Where several are active in one cell, the last of them is shown, as in MinAtar.
        """
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array', which gymnasium.make passes on")
            return None
        state = self._game.state()
        shown = (state * np.arange(1, state.shape[2] + 1)).max(axis=2)
        return COLOURS[shown].repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)

    def _observation(self) -> np.ndarray:
        state = self._game.state().astype(np.float32)
        return state.reshape(-1) if self._flatten else state

    def _share_generator(self) -> None:
        """Have the game, which calls the methods of a RandomState, draw from ``np_random``."""
        self._game.random = np.random.RandomState(self.np_random.bit_generator)

    def __getstate__(self) -> dict[str, Any]:
        # The game's class cannot be imported by name, so the game's attributes travel without it. Its generator shares
        # the state of np_random, which travels by itself.
        game = {name: value for name, value in vars(self._game).items() if name != "random"}
        return {**vars(self), "_game": game}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        kind = game_class(self.game)
        self._game = kind.__new__(kind)
        vars(self._game).update(state["_game"])
        self._share_generator()


def game_class(game: str) -> Any:
    """Return the class of one game, loaded from MinAtar's file.

    ``import minatar`` would import Matplotlib, seaborn and pandas, which take a second, and would log a warning where
    one of them is missing.

    Args:
        game: one of ``GAMES``.

    Raises:
        MissingExtraError: MinAtar is not installed.
    """
    # Where there is no such package, library raises, as its import fails.
    package = importlib.util.find_spec("minatar") or library("minatar", "minatar").__spec__
    path = Path(package.submodule_search_locations[0], "environments", f"{game}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}.{game}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Env


for _game in GAMES:
    gym.register(
        f"budget/MinAtar{_game.title().replace('_', '')}-v0",
        "budget_wrappers.integrations.minatar:MinAtarEnv",
        max_episode_steps=MAX_EPISODE_STEPS,
        kwargs={"game": _game},
    )

__all__ = ["COLOURS", "GAMES", "MAX_EPISODE_STEPS", "N_ACTIONS", "PIXELS", "MinAtarEnv", "game_class"]
