"""``budget play``: watch a trained policy, or film it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.cli.arguments import parse, say
from agents.cli.policies import PolicyOptions, open_policy
from agents.common.evaluate import evaluate_policy
from agents.common.video import record_episode


@dataclass(frozen=True)
class PlayOptions(PolicyOptions):
    """Watch a trained policy in a window, or film it with --video.

    Attributes:
        video: folder for one animated GIF an episode, instead of a window.
        episodes: to play.
    """

    video: Path | None = None
    episodes: int = 1


def run(arguments: Sequence[str]) -> int:
    """Play as ``arguments`` say; return the exit code."""
    options = parse(PlayOptions, arguments, "budget play", PlayOptions.__doc__ or "")
    policy, env, name = open_policy(options, "human" if options.video is None else "rgb_array")
    try:
        if options.video is None:
            result = evaluate_policy(policy, env, options.episodes, options.seed)
            say(f"{name}: return {result.mean:,.2f}")
            return 0
        for episode in range(options.episodes):
            path = options.video / f"episode-{episode}.gif"
            value = record_episode(policy, env, path, options.seed + episode)
            say(f"{name}: return {value:,.2f}, {path}")
    finally:
        env.close()
    return 0
