"""MinAtar's games as environments: an episode depends on the seed and the actions alone, whatever was played before."""

import copy
import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import DQN
from agents.cli import main
from agents.runs.log import read_json
from agents.runs.records import foreign_module
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from benchmarks.resume import differences
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.integrations import minatar
from budget_wrappers.integrations.minatar import COLOURS, GAMES, PIXELS, MinAtarEnv
from tests.agents.test_resume import finished, killed

if importlib.util.find_spec("minatar") is None:  # importorskip would import it, with Matplotlib and seaborn
    pytest.skip("MinAtar is not installed", allow_module_level=True)

BREAKOUT = "budget/MinAtarBreakout-v0"
CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}
MINIMAL = {
    "asterix": (0, 1, 2, 3, 4),
    "breakout": (0, 1, 3),
    "freeway": (0, 2, 4),
    "seaquest": (0, 1, 2, 3, 4, 5),
    "space_invaders": (0, 1, 3, 5),
}
TINY = {"net_arch": (8,), "batch_size": 16, "learning_starts": 20, "buffer_size": 500}
SEEDS = st.integers(0, 2**63 - 1)
ACTIONS = st.lists(st.integers(0, 5), min_size=20, max_size=300)
games = pytest.mark.parametrize("game", GAMES)


def id_of(game: str) -> str:
    return f"budget/MinAtar{game.title().replace('_', '')}-v0"


def played(env: gym.Env, actions: Sequence[int]) -> list[tuple[bytes, float, bool]]:
    """Return what ``env`` answers to ``actions``; where an episode ends, the next one begins without a seed."""
    rows = []
    for action in actions:
        observation, reward, terminated, _, _ = env.step(action)
        rows.append((observation.tobytes(), reward, terminated))
        if terminated:
            rows.append((env.reset()[0].tobytes(), 0.0, False))
    return rows


def made(game: str, **arguments: Any) -> MinAtarEnv:
    return MinAtarEnv(game, minimal_actions=False, **arguments)


@games
@pytest.mark.parametrize("flatten", [True, False])
def test_gymnasium_finds_no_fault(game: str, flatten: bool) -> None:
    env = gym.make(id_of(game), flatten=flatten, render_mode="rgb_array")
    check_env(env.unwrapped)
    assert env.observation_space == gym.spaces.Box(
        0, 1, (100 * CHANNELS[game],) if flatten else (10, 10, CHANNELS[game]), np.float32
    )
    assert env.action_space == gym.spaces.Discrete(len(MINIMAL[game]))


@games
@settings(max_examples=15, deadline=None)
@given(before=ACTIONS, first=SEEDS, seed=SEEDS, actions=ACTIONS)
def test_a_seeded_episode_depends_on_seed_and_actions_alone(
    game: str, before: list[int], first: int, seed: int, actions: list[int]
) -> None:
    # Half of the actions stick, so that the first one after a reset often depends on the action that came before it.
    used, fresh = made(game, sticky_action_prob=0.5), made(game, sticky_action_prob=0.5)
    used.reset(seed=first)
    played(used, before)
    assert np.array_equal(used.reset(seed=seed)[0], fresh.reset(seed=seed)[0])
    assert played(used, actions) == played(fresh, actions)


@pytest.mark.parametrize("game", ["asterix", "seaquest", "space_invaders"])
def test_a_reset_ends_the_ramp_of_difficulty(game: str) -> None:
    used, fresh = made(game), made(game)
    for env in (used, fresh):
        env.reset(seed=0)
    harder = {"spawn_speed": 1, "move_speed": 2, "e_spawn_speed": 1, "enemy_move_interval": 6, "ramp_index": 9}
    vars(used._game).update({name: value for name, value in harder.items() if hasattr(used._game, name)})
    actions = np.random.default_rng(0).integers(6, size=300)
    assert played(copy.deepcopy(used), actions) != played(fresh, actions)
    for env in (used, fresh):
        env.reset(seed=1)
    assert used._game.difficulty_ramp() == 0
    assert played(used, actions) == played(fresh, actions)


@games
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_mid_episode_goes_on_as_the_original(game: str, copied: Callable[[gym.Env], gym.Env]) -> None:
    rng = np.random.default_rng(1)
    env = gym.make(id_of(game)).unwrapped
    env.reset(seed=3)
    played(env, rng.integers(env.action_space.n, size=25))
    other, actions = copied(env), rng.integers(env.action_space.n, size=200)
    assert played(other, actions) == played(env, actions)


def test_a_copy_of_an_environment_that_was_never_reset_plays() -> None:
    env, other = (pickle.loads(pickle.dumps(MinAtarEnv("breakout"))) for _ in range(2))
    assert np.array_equal(env.reset(seed=5)[0], other.reset(seed=5)[0])


def test_resets_without_a_seed_continue_with_the_generator() -> None:
    env, other = (MinAtarEnv("breakout", flatten=False) for _ in range(2))
    starts = [[one.reset(seed=4)[0], *(one.reset()[0] for _ in range(20))] for one in (env, other)]
    assert np.array_equal(starts[0], starts[1])
    assert {int(start[3, :, 1].argmax()) for start in starts[0]} == {0, 9}  # the ball begins on either side


@games
@pytest.mark.parametrize("ramping", [True, False])
def test_an_episode_matches_oracle(game: str, ramping: bool) -> None:
    """MinAtar's own Environment, with the same generator and no last action after a reset, plays the same episodes."""
    oracle = importlib.import_module("minatar.environment").Environment(game, 0.3, ramping)
    oracle.random = oracle.env.random = np.random.RandomState(gym.utils.seeding.np_random(7)[0].bit_generator)
    env = made(game, flatten=False, sticky_action_prob=0.3, difficulty_ramping=ramping)
    oracle.reset()
    assert np.array_equal(env.reset(seed=7)[0], oracle.state())
    for action in np.random.default_rng(2).integers(6, size=600):
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated) == oracle.act(action)
        assert np.array_equal(observation, oracle.state())
        assert (type(reward), type(terminated), truncated, info) == (float, bool, False, {})
        if terminated:
            oracle.reset()
            oracle.last_action = 0
            assert np.array_equal(env.reset()[0], oracle.state())


@games
def test_minimal_actions_are_those_of_the_game(game: str) -> None:
    env, whole = MinAtarEnv(game, sticky_action_prob=0), made(game, sticky_action_prob=0)
    for one in (env, whole):
        one.reset(seed=8)
    actions = np.random.default_rng(3).integers(env.action_space.n, size=100)
    assert played(env, actions) == played(whole, [MINIMAL[game][action] for action in actions])


@games
def test_a_vector_is_the_flattened_grid(game: str) -> None:
    env, grid = MinAtarEnv(game), MinAtarEnv(game, flatten=False)
    assert np.array_equal(env.reset(seed=9)[0], grid.reset(seed=9)[0].reshape(-1))


def test_an_action_that_sticks_for_certain_is_none() -> None:
    # The action before the first is 0 (none), also after an episode whose last action was another one.
    env = MinAtarEnv("breakout", flatten=False, sticky_action_prob=1)
    env._last_action = 3
    env.reset(seed=0)
    for _ in range(5):
        observation = env.step(1)[0]
    assert observation[9, :, 0].argmax() == 4  # the paddle has not moved


@games
def test_an_image_shows_the_last_active_channel_of_each_cell(game: str) -> None:
    env = MinAtarEnv(game, flatten=False, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    image = env.render()
    assert (image.shape, image.dtype) == ((10 * PIXELS, 10 * PIXELS, 3), np.uint8)
    for row, column in np.ndindex(10, 10):
        active = np.flatnonzero(observation[row, column])
        square = image[row * PIXELS : (row + 1) * PIXELS, column * PIXELS : (column + 1) * PIXELS]
        assert np.all(square == COLOURS[active[-1] + 1 if active.size else 0])


def test_colours_differ() -> None:
    assert len(np.unique(COLOURS, axis=0)) == len(COLOURS) == 1 + max(CHANNELS.values())


def test_an_image_needs_a_render_mode() -> None:
    env = MinAtarEnv("breakout")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"game": "pong"}, "game='pong': expected one of asterix, breakout"),
        ({"render_mode": "human"}, "render_mode='human': expected 'rgb_array' or None"),
        ({"flatten": 1}, "flatten=1: expected True or False"),
        ({"minimal_actions": "all"}, "minimal_actions='all': expected True or False"),
        ({"difficulty_ramping": None}, "difficulty_ramping=None: expected True or False"),
        ({"sticky_action_prob": 1.1}, "sticky_action_prob=1.1: expected a probability"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MinAtarEnv(**{"game": "breakout", **arguments})


@pytest.mark.parametrize("action", [-1, 3, 0.0, None])
def test_an_action_outside_the_space_is_refused(action: Any) -> None:
    env = MinAtarEnv("breakout")
    env.reset(seed=0)
    with pytest.raises(SpaceError, match="expected a whole number from 0 to 2"):
        env.step(action)


@games
def test_a_spec_goes_through_json_and_has_a_time_limit(game: str) -> None:
    spec = gym.make(id_of(game), sticky_action_prob=0.2).spec
    env = gym.make(EnvSpec.from_json(spec.to_json()))
    assert env.spec == spec
    assert json.loads(spec.to_json())["max_episode_steps"] == minatar.MAX_EPISODE_STEPS
    assert env.unwrapped._sticky_action_prob == 0.2


def test_freeway_ends_by_itself_before_the_time_limit() -> None:
    env = gym.make(id_of("freeway"))
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        *_, terminated, truncated, _ = env.step(1)
        steps += 1
    assert (steps, terminated, truncated) == (2501, True, False)
    assert steps < minatar.MAX_EPISODE_STEPS


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_vector_environment_plays_what_single_ones_play(mode: str) -> None:
    envs = gym.make_vec(BREAKOUT, num_envs=2, vectorization_mode=mode)
    singles = [gym.make(BREAKOUT) for _ in range(2)]
    alone = [env.reset(seed=6 + number)[0] for number, env in enumerate(singles)]
    together = envs.reset(seed=6)[0]
    for _ in range(5):
        assert np.array_equal(together, alone)
        together, alone = envs.step(np.array([1, 2]))[0], [env.step(1 + i)[0] for i, env in enumerate(singles)]
    envs.close()


def test_a_killed_run_ends_like_one_never_killed(tmp_path: Path) -> None:
    config = RunConfig(
        BREAKOUT, steps=300, eval_every=100, eval_episodes=1, log_every=50, checkpoint_every=50, tensorboard=False
    )
    whole = finished(tmp_path / "whole", config, DQN, TINY)
    other = killed(tmp_path / "killed", 180, config, DQN, TINY)
    with Run.resume(DQN, other) as run:
        assert run.train()
    assert differences(whole, other) == []


def test_the_command_trains_and_its_folder_is_evaluated_without_trust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, env in enumerate((BREAKOUT, f"budget_wrappers.integrations.minatar:{BREAKOUT}")):
        folder = str(tmp_path / str(number))
        words = ["--steps", "60", "--learning-starts", "20", "--net-arch", "8", "--no-tensorboard", "--run", folder]
        assert main(["train", "dqn", "--env", env, *words]) == 0
        assert read_json(Path(folder, "config.json"))["run"]["env"] == env
        assert main(["eval", folder, "--episodes", "1"]) == 0
    assert foreign_module(env) is None
    assert foreign_module("minatar.gym:MinAtar/Breakout-v1") == "minatar.gym"
    assert "Error" not in capsys.readouterr().err


def test_the_command_knows_the_ids_and_a_game_loads_no_plotting_library() -> None:
    program = f"""
import sys
import gymnasium
import agents.runs.run_config
gymnasium.make("{BREAKOUT}").reset(seed=0)
print(sorted({{"minatar", "matplotlib", "seaborn", "pandas", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
