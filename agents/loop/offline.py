"""Learning from a data set on disk: what CQL and behaviour cloning share. No environment is stepped."""

from typing import Any

import torch
from torch import Tensor

from agents.loop.callbacks import callbacks_of
from agents.loop.divergence import require_converging
from agents.loop.spaces import NoEnvironment
from agents.replay.buffers import ReplayBuffer
from agents.replay.dataset import Transitions, open_dataset, read_transitions
from budget_wrappers.arguments import refuse
from budget_wrappers.errors import ConfigError, DatasetError


class FixedReplay(ReplayBuffer):
    """A replay that holds a data set and never changes. Checkpoints store its size only: the data are on disk.

    Args:
        transitions: what it holds.
        settings: see ``ReplayBuffer``.
    """

    def __init__(self, transitions: Transitions, **settings: Any) -> None:
        super().__init__(len(transitions), transitions.observation.shape[1:], transitions.action.shape[1:], **settings)
        self.fill(transitions)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of transitions."""
        return {"transitions": torch.tensor([self.size])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Compare the number of transitions.

        Raises:
            DatasetError: another one: the agent was trained on other data.
        """
        if int(state["transitions"]) != self.size:
            raise DatasetError(
                f"the data set has {self.size} transitions: expected the {int(state['transitions'])} that the agent "
                "was trained on; pass that data set"
            )


def environment_for(env: Any, dataset: Any) -> Any:
    """Return ``env``, or where it is ``None`` a stand-in with the spaces of ``dataset``.

    Raises:
        ConfigError: neither is given.
        DatasetError: the data set cannot be opened.
    """
    if env is not None:
        if not hasattr(env, "action_space"):
            refuse("env", env, "a Gymnasium environment or vector environment")
        return env
    if dataset is None:
        raise ConfigError("env=None and dataset=None: expected one of them, for the spaces; pass dataset=…")
    opened = open_dataset(dataset)
    return NoEnvironment(opened.observation_space, opened.action_space)


def replay_of(agent: Any, dataset: Any) -> ReplayBuffer:
    """Return a replay with all of ``dataset``, or an empty one for ``None``, which cannot learn.

    Raises:
        DatasetError: data that do not fit the agent's spaces, or that cannot be read.
        NonFiniteError: NaN or infinity in the data.
    """
    config = agent.config
    settings = {"discrete": agent.discrete, "gamma": config.gamma, "n_step": config.n_step, "device": config.device}
    settings["reward_scale"] = config.reward_scale
    if config.hindsight:
        raise ConfigError(f"hindsight={config.hindsight} offline: expected 0, as no environment pays for other goals")
    if dataset is None:
        action_shape = () if agent.discrete else agent.action_space.shape
        return ReplayBuffer(config.n_step, agent.observation_shape, action_shape, **settings)
    spaces = agent.observation_space, agent.action_space
    return FixedReplay(read_transitions(dataset, *spaces, agent.to_array, agent.from_env_action), **settings)


def learn_offline(agent: Any, gradient_steps: int, callback: Any, progress_bar: bool) -> Any:
    """Take ``gradient_steps`` updates on the agent's data and return it.

    ``num_timesteps`` counts the updates, so callbacks fall due by them. Every update is a point where a run can be
    resumed exactly.

    Raises:
        DatasetError: the agent has no data.
    """
    if len(agent.replay) == 0:
        raise DatasetError(
            f"{type(agent).__name__} has no data to learn from: expected a data set; pass dataset=… when it is made "
            "or loaded"
        )
    callbacks = callbacks_of(callback, progress_bar, gradient_steps)
    end = agent.total_timesteps = agent.num_timesteps + gradient_steps
    callbacks.on_training_start(agent)
    try:
        while agent.num_timesteps < end:
            agent.num_timesteps += 1
            agent.num_rounds += 1
            agent.after_step()
            agent.train(1)
            if not callbacks.on_step(agent):
                break
        require_converging(agent)
        agent.learned()
    finally:
        callbacks.on_training_end(agent)
    return agent
