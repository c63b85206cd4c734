"""``budget play``: watch a trained policy, or film it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.cli.arguments import parse, say
from agents.cli.paths import require_file, require_folder
from agents.config import require
from agents.loop.evaluate import evaluate_policy
from agents.methods.asymmetric import Asymmetric
from agents.report.timeline import plot_timeline, record_timeline
from agents.report.video import record_episode
from agents.studies.policies import PolicyOptions, open_policy


@dataclass(frozen=True)
class PlayOptions(PolicyOptions):
    """Watch a trained policy in a window, or film it with --video.

    Attributes:
        video: folder for one animated GIF an episode, instead of a window.
        timeline: PNG of which sub-policy acted when in one episode, instead of a window; for a policy of several.
        episodes: to play.
    """

    video: Path | None = None
    timeline: Path | None = None
    episodes: int = 1


def run(arguments: Sequence[str]) -> int:
    """Play as ``arguments`` say; return the exit code."""
    options = parse(PlayOptions, arguments, "budget play", PlayOptions.__doc__ or "")
    require(options.episodes >= 1, "episodes", options.episodes, "at least 1")
    require_folder(options.video, "video")
    require_file(options.timeline, "timeline")
    if options.timeline is not None:
        return draw_timeline(options, options.timeline)
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


def draw_timeline(options: PlayOptions, path: Path) -> int:
    """Draw one episode's choices; return the exit code."""
    policy, env, name = open_policy(options)
    try:
        if isinstance(policy, Asymmetric):
            master, choices = policy.master, policy.choices_in(env)
        else:
            master, choices = policy, env
        timeline = record_timeline(master, choices, options.seed)
        plot_timeline(timeline, path, f"{name}: return {timeline.rewards.sum():,.1f}")
        say(f"{name}: {path}")
    finally:
        env.close()
    return 0
