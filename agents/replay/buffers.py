"""Experience replay: tensors on the agent's device, sampled without a line of Python per transition."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from budget_wrappers.arguments import a_count, a_flag, a_number, an_instance
from budget_wrappers.errors import ConfigError, NonFiniteError
from budget_wrappers.functional.finite import LARGEST, storable
from budget_wrappers.metering.latency import as_device


class Batch(NamedTuple):
    """``B`` transitions.

    Attributes:
        observation: ``(B, *O)``.
        action: ``(B, A)`` float32 in [-1, 1], or ``(B,)`` int64.
        reward: ``(B,)``, summed and discounted over the n-step window.
        discount: ``(B,)``, ``γⁿ·(1 − terminated)``: what the target multiplies the next value with. A time limit
            does not cut it.
        next_observation: ``(B, *O)``, after the window.
        weight: ``(B,)`` importance weights, all ones without prioritisation.
        index: ``(B,)`` places in the buffer, for priorities.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    weight: Tensor
    index: Tensor


INDEX_BYTES = 64
"""Of a transition: what a replay keeps of it besides the transition itself, at most, written when it is made."""


def require_room(capacity: int) -> None:
    """Raise for more transitions than this machine's memory could even number.

    Raises:
        ConfigError: with the capacity.
    """
    names = getattr(os, "sysconf_names", ())
    if "SC_PHYS_PAGES" in names and capacity * INDEX_BYTES > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise too_large(capacity)


def too_large(capacity: int) -> ConfigError:
    """Return the error for a replay that gets no memory."""
    return ConfigError(
        f"buffer_size={capacity} does not fit in this machine's memory: expected less; lower buffer_size"
    )


class ReplayBuffer:
    """A ring of transitions, sampled uniformly.

    Args:
        capacity: transitions held.
        observation_shape: of one observation.
        action_shape: ``(A,)``, or ``()`` for discrete actions.
        observation_dtype: storage type; integers are sampled as float32.
        discrete: whether actions are int64.
        gamma: discount γ.
        n_step: window of the returns. A window ends early at the end of an episode.
        reward_scale: what the agent multiplies sampled rewards by: it only bounds what can be stored.
        device: of the storage and of what is sampled.

    Attributes:
        largest_reward: the largest absolute reward that is stored: above it the sum of a window, times the agent's
            ``reward_scale``, is not finite in float32.
        acted_by: ``(capacity,)`` int16, which sub-policy or exit chose each action, −1 for none; ``None`` until
            ``note_acting`` is called.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        *,
        observation_dtype: torch.dtype = torch.float32,
        discrete: bool = False,
        gamma: float = 0.99,
        n_step: int = 1,
        reward_scale: float = 1.0,
        device: str = "cpu",
    ) -> None:
        a_count("buffer_size", capacity, 1, 2**40)
        a_count("n_step", n_step, 1)
        a_number("gamma", gamma, "a discount in [0, 1]", lambda share: 0 <= share <= 1)
        a_number("reward_scale", reward_scale, "a factor above 0", lambda factor: factor > 0)
        discrete = a_flag("discrete", discrete)
        for name, shape in (("observation_shape", observation_shape), ("action_shape", action_shape)):
            for size in an_instance(name, shape, tuple | list, "a tuple of sizes"):
                a_count(name, size)
        if n_step > capacity:
            raise ConfigError(
                f"buffer_size={capacity} holds no window of n_step={n_step}; raise buffer_size or lower n_step"
            )
        self.capacity, self.gamma, self.n_step, self.device = capacity, gamma, n_step, as_device(device)
        self.largest_reward = LARGEST / (n_step * max(reward_scale, 1.0))
        # torch.empty leaves the pages of a large buffer untouched until they are written.
        action_dtype = torch.int64 if discrete else torch.float32
        require_room(capacity)
        try:
            self.observation = torch.empty((capacity, *observation_shape), dtype=observation_dtype, device=device)
            self.next_observation = torch.empty_like(self.observation)
            self.action = torch.empty((capacity, *action_shape), dtype=action_dtype, device=device)
        except (RuntimeError, MemoryError) as error:
            raise too_large(capacity) from error
        self.reward = torch.empty(capacity, device=device)
        self.terminated = torch.empty(capacity, dtype=torch.bool, device=device)
        self.follower = torch.empty(capacity, dtype=torch.int64, device=device)
        self.acted_by: Tensor | None = None
        self.position, self.size = 0, 0
        self._newest: dict[int, tuple[int, int]] = {}
        self._added = 0
        # On the CPU, numpy writes into the tensors' memory at a tenth of the cost of a tensor assignment.
        self._written = {name: self._writable(getattr(self, name)) for name in self.arrays}

    arrays = ("observation", "next_observation", "action", "reward", "terminated", "follower")

    def __len__(self) -> int:
        return self.size

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        streams: Sequence[int] = (0,),
    ) -> None:
        """Store ``n`` transitions; every argument has that leading dimension.

        Args:
            observation: ``(n, *O)``, before the step.
            action: ``(n, A)`` in [-1, 1], or ``(n,)`` indices.
            reward: ``(n,)``.
            next_observation: ``(n, *O)``, after it; of the finished episode where one has ended.
            terminated: ``(n,)``, cuts the bootstrap.
            truncated: ``(n,)``, ends the episode without cutting it.
            streams: which environment each comes from, so that windows follow one environment's episode.

        Raises:
            NonFiniteError: a number that is not finite as it is stored; none of the transitions is stored then.
        """
        self.require_storable(observation, action, reward, next_observation)
        for row, stream in enumerate(streams):
            place, write = self.position, self._written
            write["observation"][place] = observation[row]
            write["next_observation"][place] = next_observation[row]
            write["action"][place] = action[row]
            write["reward"][place] = reward[row]
            write["terminated"][place] = terminated[row]
            write["follower"][place] = -1
            before, when = self._newest.get(stream, (place, -self.capacity))
            # A step that was overwritten meanwhile has no follower.
            if self._added - when < self.capacity:
                write["follower"][before] = place
            if terminated[row] or truncated[row]:
                self._newest.pop(stream, None)
            else:
                self._newest[stream] = place, self._added
            self._added += 1
            self.position = (place + 1) % self.capacity
            self.size = min(self.size + 1, self.capacity)

    def require_storable(self, observation: Any, action: Any, reward: Any, next_observation: Any) -> None:
        """Raise unless transitions are finite as they are stored; see ``add``.

        Raises:
            NonFiniteError: with the number of the transition.
        """
        reward, largest = np.asarray(reward), self.largest_reward
        given = np.asarray(observation), np.asarray(action), np.asarray(next_observation)
        if storable(reward, largest) and storable(given[0]) and storable(given[1]) and storable(given[2]):
            return
        where = f"of transition {self._added}"
        for name, value in zip(("observation", "action", "next observation"), given, strict=True):
            require_storable(name, value, where)
        require_storable("reward", reward, where, largest)

    def note_acting(self, acted_by: np.ndarray) -> None:
        """Remember who chose the actions of the transitions added last: a sub-policy's index, −1 for none.

        Args:
            acted_by: shape ``(n,)``, in the order of ``add``.
        """
        if self.acted_by is None:
            self.acted_by = torch.full((self.capacity,), -1, dtype=torch.int16, device=self.device)
        places = (self.position - len(acted_by) + np.arange(len(acted_by))) % self.capacity
        self.acted_by[torch.from_numpy(places)] = torch.as_tensor(acted_by, dtype=torch.int16, device=self.device)

    def fill(self, transitions: Any) -> None:
        """Store a whole data set of at most ``capacity`` transitions in an empty buffer.

        Args:
            transitions: has the attributes of ``agents.replay.dataset.Transitions``.

        Raises:
            NonFiniteError: a number that is not finite as it is stored.
        """
        self.require_storable(
            transitions.observation, transitions.action, transitions.reward, transitions.next_observation
        )
        count = len(transitions.reward)
        for name in ("observation", "next_observation", "action", "reward", "terminated"):
            getattr(self, name)[:count] = torch.as_tensor(getattr(transitions, name))
        follower = np.arange(1, count + 1)
        follower[transitions.terminated | transitions.truncated] = -1
        follower[-1] = -1
        self.follower[:count] = torch.as_tensor(follower)
        self.position, self.size = count % self.capacity, count

    def forget_unfinished(self) -> None:
        """Close every open episode: what is added next follows nothing. Called at each reset from outside."""
        self._newest.clear()

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return ``batch_size`` transitions, drawn uniformly with replacement."""
        return self.gather(torch.randint(self.size, (batch_size,), generator=generator, device=self.device))

    def update_priorities(self, index: Tensor, error: Tensor) -> None:
        """Do nothing: draws are uniform. See ``PrioritizedReplay``."""

    def gather(self, index: Tensor, weight: Tensor | None = None) -> Batch:
        """Return the transitions that start at ``index``, with n-step returns."""
        if self.n_step == 1:
            end, reward = index, self._rows("reward", index)
            discount = self.gamma * (~self._rows("terminated", index)).float()
        else:
            end, reward, discount = self._window(index)
        return Batch(
            self._float(self._rows("observation", index)),
            self._rows("action", index),
            reward,
            discount,
            self._float(self._rows("next_observation", end)),
            torch.ones_like(reward) if weight is None else weight,
            index,
        )

    def _rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows ``index`` of an array; on the CPU numpy gathers them in a quarter of the time."""
        if self.device.type == "cpu":
            return torch.from_numpy(self._written[name].take(index.numpy(), 0))
        return getattr(self, name)[index]

    def _window(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last place, ``Σ γⁱ r`` and ``γⁿ·(1 − terminated)`` of the window that starts at each index."""
        end, running = index, torch.ones_like(index, dtype=torch.bool)
        reward = torch.zeros(len(index), device=self.device)
        power = torch.ones(len(index), device=self.device)
        place = index
        for _ in range(self.n_step):
            end = torch.where(running, place, end)
            reward = reward + torch.where(running, power * self.reward[place], 0.0)
            power = torch.where(running, power * self.gamma, power)
            place = self.follower[end]
            running = running & (place >= 0)
            place = place.clamp(min=0)
        return end, reward, power * (~self.terminated[end]).float()

    @staticmethod
    def _float(x: Tensor) -> Tensor:
        return x if x.dtype == torch.float32 else x.float()

    def _writable(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self.device.type == "cpu" else _TensorWriter(tensor)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the filled part of every array and the position. Open episodes are closed."""
        state = {name: getattr(self, name)[: self.size] for name in self.arrays}
        state |= {} if self.acted_by is None else {"acted_by": self.acted_by[: self.size]}
        return {**state, "position": torch.tensor([self.position, self.size])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self.position, self.size = (int(number) for number in state["position"])
        for name in self.arrays:
            getattr(self, name)[: self.size] = state[name]
        self.acted_by = None
        if "acted_by" in state:
            self.acted_by = torch.full((self.capacity,), -1, dtype=torch.int16, device=self.device)
            self.acted_by[: self.size] = state["acted_by"]
        self.forget_unfinished()


def require_storable(name: str, value: np.ndarray, where: str, largest: float = LARGEST) -> None:
    """Raise unless every number of ``value`` is finite in float32 and at most ``largest``.

    Args:
        name: what the numbers are, for the message.
        value: of any real type.
        where: which step or transition they belong to, for the message.
        largest: bound of the absolute value.

    Raises:
        NonFiniteError: with the value, the precision and the remedy.
    """
    if not storable(value, largest):
        lower = "" if largest >= LARGEST else ", lower n_step or reward_scale"
        raise NonFiniteError(
            f"the {name} {where} is {value!r}: expected finite numbers in float32, the precision in which a replay "
            f"stores them, of at most {largest:.3g}; mend the environment, scale its {name} (for example with "
            f"gymnasium.wrappers.RescaleObservation or TransformReward){lower}; the transition was not stored"
        )


class _TensorWriter:
    """Gives a device tensor numpy's assignment: ``writer[place] = array``."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setitem__(self, place: int, value: Any) -> None:
        self.tensor[place] = torch.as_tensor(value, device=self.tensor.device)
