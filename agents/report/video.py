"""Films of a policy, as animated GIFs: they play in any browser and README, and need no encoder."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.loop.evaluate import handed_back
from budget_wrappers.errors import ConfigError, MissingExtraError
from budget_wrappers.files import replacing

MAX_FRAMES, MAX_SIDE = 1_000, 320
"""A film is cut and its pictures are shrunk to this, as all of it is held in memory: 100 MB at most."""


def record_episode(
    policy: Any,
    env: gym.Env,
    path: str | Path,
    seed: int,
    deterministic: bool = True,
    every: int = 1,
    largest: int | None = None,
) -> float:
    """Film one episode of ``policy`` and return its return.

    Args:
        policy: see ``evaluate_policy``.
        env: made with ``render_mode="rgb_array"``.
        path: of the ``.gif``.
        seed: of the episode.
        deterministic: whether the policy's noise is off.
        every: steps between two pictures; the film plays as long all the same.
        largest: bytes of the file, ``None`` for any; see ``write_gif``.

    Raises:
        ConfigError: another render mode.
        MissingExtraError: Pillow, or what the environment draws with, is not installed.
    """
    if env.render_mode != "rgb_array":
        raise ConfigError(
            f"render_mode={env.render_mode!r}: expected 'rgb_array', whose frames can be filmed; make the environment "
            "with gymnasium.make(…, render_mode='rgb_array')"
        )
    observation, _ = env.reset(seed=seed)
    frames, total, steps, over, state = [small(first_frame(env))], 0.0, 0, False, None
    while not over:
        action, state = policy.predict(observation, **handed_back(state), deterministic=deterministic)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, steps = total + float(reward), steps + 1
        if steps % every == 0 and len(frames) < MAX_FRAMES:
            frames.append(small(np.asarray(env.render())))
        over = terminated or truncated
    write_gif(frames, Path(path), float(env.metadata.get("render_fps", 30)) / every, largest)
    return total


def first_frame(env: gym.Env) -> np.ndarray:
    """Return the picture of ``env`` as it is.

    Raises:
        MissingExtraError: what it draws with is not installed.
    """
    try:
        return np.asarray(env.render())
    except gym.error.DependencyNotInstalled as error:
        raise MissingExtraError(f"{env} cannot be drawn: expected its drawing package to be there; {error}") from error


def small(frame: np.ndarray) -> Any:
    """Return ``frame``, ``(height, width, 3)`` uint8, as a picture of few colours and at most ``MAX_SIDE`` pixels.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "filming needs Pillow, which is not installed: expected `import PIL` to work; pip install pillow"
        ) from error
    picture = Image.fromarray(frame)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture.quantize(dither=Image.Dither.NONE)


def write_gif(pictures: list[Any], path: Path, frames_per_second: float, largest: int | None = None) -> None:
    """Write ``pictures`` to ``path``, whole or not at all.

    Args:
        pictures: one at least.
        path: of the file.
        frames_per_second: of all pictures.
        largest: bytes of the file: while it has more, every second picture is left out. ``None`` for any size.
    """
    # A GIF counts hundredths of a second and viewers slow down below two of them: fast films drop pictures instead.
    skip = max(1, round(frames_per_second / 50))
    with replacing(path) as partial:
        while True:
            first, *others = pictures[::skip]
            duration = round(1000 * skip / frames_per_second)
            first.save(partial, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
            if largest is None or partial.stat().st_size <= largest or not others:
                return
            skip *= 2
