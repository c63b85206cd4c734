"""An agent that is still learning, as a sub-policy."""

from typing import Any

import numpy as np

from agents.loop.agent import OffPolicyAgent
from agents.loop.collect import Step
from agents.nets.noise import OrnsteinUhlenbeck


class Explorer:
    """An agent as the sub-policy that training runs: it acts with its noise.

    Args:
        name: of the sub-policy.
        agent: that acts.
        noise: added to its actions.

    Attributes:
        action: the last one, in [-1, 1] as a replay stores it.
    """

    def __init__(self, name: str, agent: OffPolicyAgent, noise: OrnsteinUhlenbeck) -> None:
        self.name, self.agent, self.noise = name, agent, noise
        self.action = np.empty(0)

    @property
    def flops(self) -> int:
        """FLOPs of one action at most."""
        return self.agent.flops_per_action

    @property
    def flops_of_last_call(self) -> int:
        """FLOPs of the last action."""
        return self.agent.flops_spent()

    def __call__(self, observation: Any) -> np.ndarray:
        """Return the environment's action for one observation."""
        rows = self.agent.to_array(observation)[None]
        action = self.agent.choosing(rows, lambda seen: self.agent.act(seen, deterministic=False))
        action = np.clip(action + self.noise(), -1.0, 1.0)
        self.action = action[0]
        return self.agent.to_env_action(action)[0]

    def tell_stored(self, terminated: np.ndarray, truncated: np.ndarray, replay: Any, held: bool = False) -> None:
        """Tell the agent's methods that the step of its last action is stored.

        Args:
            terminated: of the step, ``(1,)``.
            truncated: the same.
            replay: that holds it; where it notes who acted, it first forgets whose place the step has taken.
            held: whether the last action was repeated, so that no sub-policy has chosen it.
        """
        if replay.acted_by is not None:
            replay.note_acting(np.array([-1]))
        for method in self.agent.methods if not held else ():
            method.after_storing(self.agent, Step.ended(terminated, truncated))
