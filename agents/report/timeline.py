"""Which sub-policy acted when: one episode's actions over the choices behind them, as data and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from agents.report.pictures import DOTS_PER_INCH, FAINT_INK, INK, METHOD_COLOURS, PLAIN_TEXT
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.files import replacing
from budget_wrappers.wrappers import HELD, PrimitiveTransition, SubPolicyAction

MOST_ROWS = 8


@dataclass(frozen=True)
class Timeline:
    """One episode of ``T`` environment steps with ``K`` sub-policies and actions of ``A`` numbers.

    Attributes:
        names: of the sub-policies, cheapest first.
        options: ``(T,)``, the sub-policy that acted, −1 where a limit repeated the last action.
        taken: ``(T, A)``, what was done.
        actions: ``(K, T, A)``, what each sub-policy would have done at every step.
        rewards: ``(T,)``, without penalties.
        low, high: bounds of the action space, ``(A,)``.
    """

    names: tuple[str, ...]
    options: np.ndarray
    taken: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    low: np.ndarray
    high: np.ndarray


def record_timeline(master: Any, options: gym.Env, seed: int, deterministic: bool = True) -> Timeline:
    """Run one episode and return who acted in it, and what the others would have done.

    What the others would have done is computed with the meter paused: it costs the episode nothing.

    Args:
        master: picks options: ``predict(observation, deterministic=…) -> (index, state)``.
        options: a ``SubPolicyAction``, wrapped or not, over an environment with a one-dimensional ``Box`` of actions.
        seed: of the episode.
        deterministic: passed to ``predict``.

    Raises:
        ConfigError: ``options`` has no ``SubPolicyAction``.
        SpaceError: actions that are no vectors.
    """
    layer = options
    while not isinstance(layer, SubPolicyAction):
        if not isinstance(layer, gym.Wrapper):
            raise ConfigError(f"{options} has no SubPolicyAction, so there are no choices to show; pass one around it")
        layer = layer.env
    space = layer.env.action_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise SpaceError(f"the action space {space} has no lines to draw: expected a Box of one dimension")
    steps: list[PrimitiveTransition] = []
    others: list[list[np.ndarray]] = []

    def note(step: PrimitiveTransition) -> None:
        # A sub-policy may write its next action into the same memory.
        steps.append(step._replace(action=np.array(step.action)))
        with layer.meter.paused():
            others.append([np.array(policy(step.observation)) for policy in layer.sub_policies])

    forget = layer.subscribe(note)
    try:
        observation, _ = options.reset(seed=seed)
        over = False
        while not over:
            index, _ = master.predict(observation, deterministic=deterministic)
            observation, _, terminated, truncated, _ = options.step(int(index))
            over = terminated or truncated
    finally:
        forget()
    return Timeline(
        layer.sub_policies.names,
        np.array([step.index for step in steps]),
        np.array([step.action for step in steps]),
        np.array(others).swapaxes(0, 1),
        np.array([step.reward for step in steps]),
        space.low,
        space.high,
    )


@matplotlib.rc_context(PLAIN_TEXT)
def plot_timeline(timeline: Timeline, path: Path, title: str) -> Path:
    """Draw the actions in the colour of the sub-policy that acted, the others' faintly, over a strip of the choices.

    At most eight numbers of the action are drawn, the first ones.

    Args:
        timeline: of ``record_timeline``.
        path: of a PNG, written whole or not at all.
        title: above the picture.
    """
    count = min(timeline.actions.shape[2], MOST_ROWS)
    figure = Figure(figsize=(9.0, 1.5 + 1.15 * count), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(count + 1, 1, sharex=True, height_ratios=[1.0] * count + [0.35], squeeze=False)[:, 0]
    for number, axes in enumerate(rows[:-1]):
        _draw_action(axes, timeline, number)
        axes.set_ylabel(f"action {number}" if count > 1 else "action", color=INK)
    strip = rows[-1]
    strip.imshow(
        np.array([_rgb(index) for index in timeline.options])[None],
        aspect="auto",
        extent=(0, len(timeline.options), 0, 1),
        interpolation="nearest",
    )
    strip.set_yticks([])
    strip.set_xlabel("environment step", color=INK)
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT_INK)
        axes.tick_params(colors=INK, labelsize=9)
    rows[0].set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=22)
    _name_the_colours(rows[0], timeline)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", facecolor="white")
    return path


def _draw_action(axes: Any, timeline: Timeline, number: int) -> None:
    """Draw one number of the action: what was done, and faintly what each other sub-policy would have done."""
    time = np.arange(len(timeline.options))
    for index in range(len(timeline.names)):
        axes.plot(time, timeline.actions[index, :, number], color=_rgb(index), alpha=0.22, linewidth=0.8)
    points = np.stack([time, timeline.taken[:, number]], 1)
    segments = np.stack([points[:-1], points[1:]], 1)
    colours = [_rgb(index) for index in timeline.options[1:]]
    axes.add_collection(LineCollection(list(segments), colors=colours, linewidths=1.6, zorder=3))
    low, high = timeline.low[number], timeline.high[number]
    if np.isfinite([low, high]).all():
        room = 0.06 * (high - low)
        axes.set_ylim(low - room, high + room)
    axes.set_xlim(0, len(timeline.options))


def _name_the_colours(axes: Any, timeline: Timeline) -> None:
    """Write each sub-policy's share of the steps above the picture, in its colour."""
    at = 0.0
    for index, name in enumerate(timeline.names):
        text = f"{name} {np.mean(timeline.options == index):.0%}"
        axes.annotate(
            text,
            (at, 1),
            (0, 6),
            "axes fraction",
            "offset points",
            fontsize=10,
            fontweight="bold",
            color=_rgb(index),
            annotation_clip=False,
        )
        at += 0.011 * (len(text) + 3)
    axes.annotate(
        "faint: what the others would have done"
        if len(timeline.names) > 2
        else "faint: what the other would have done",
        (1, 1),
        (0, 6),
        "axes fraction",
        "offset points",
        ha="right",
        fontsize=9,
        color=FAINT_INK,
        annotation_clip=False,
    )


def _rgb(index: int) -> Sequence[float]:
    return to_rgb(FAINT_INK if index == HELD else METHOD_COLOURS[index % len(METHOD_COLOURS)])
