"""Wrapper that shows the policy its budget: ``BudgetAwareObservation``."""

from collections import OrderedDict
from typing import Any, Literal, TypeGuard, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.arguments import a_flag, a_number, a_text
from budget_wrappers.errors import ConfigError, SpaceError, WrapperOrderError
from budget_wrappers.wrappers.reading import plain, require_options

What = Literal["remaining", "budget"]
DRAWS = 1
"""Tells the stream of drawn budgets from others of the same seed."""


class BudgetAwareObservation(gym.Wrapper, RecordConstructorArgs):
    """Adds the budget to the observation, as a float32 in [0, 1], like ``TimeAwareObservation`` adds the time.

    * ``what="remaining"``: the share of the episode's limit that is left. Needs a ``ComputeLimit`` inside.
    * ``what="budget"``: the budget that the agent was given, constant over an episode, so that one policy learns the
      whole trade-off. With a ``ComputeLimit`` inside it is that episode's limit over ``scale`` FLOPs (its first limit
      unless given), cut at 1. Without one it is a share given by ``set_budget`` or ``reset(options={"budget": 0.4})``,
      1 at first, or with ``draw`` a new one each episode until one is given.

    Dict observations get the key ``dict_key``, Tuple ones a last element, others become ``Dict(obs=…, budget=…)``.
    ``flatten=True`` (default) then makes one vector of it, the budget **last**, in the observation's own float type, or
    float32 where it has none: nothing turns into float64 by itself.

    A vector version exists: ``budget_wrappers.wrappers.vector.BudgetAwareObservation``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import BudgetAwareObservation, ComputeLimit
        >>> env = gym.make("CartPole-v1")
        >>> env = BudgetAwareObservation(ComputeLimit(env, 1_000, "terminate", meter="docs.observation"))
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape, obs.dtype, float(obs[-1])
        ((5,), dtype('float32'), 1.0)
        >>> get_meter("docs.observation").add(250)
        >>> float(env.step(0)[0][-1])
        0.75

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        what: What = "remaining",
        flatten: bool = True,
        *,
        scale: int | None = None,
        draw: tuple[float, float] | None = None,
        dict_key: str = "budget",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            what: the remaining share, or the budget that was given.
            flatten: return one vector.
            scale: FLOPs that count as a budget of 1, for ``what="budget"`` over a ``ComputeLimit``.
            draw: ends within [0, 1] that each episode's share is drawn between, for ``what="budget"`` without a
                ``ComputeLimit``; ``set_budget(None)`` draws again after one was given.
            dict_key: key in a Dict observation.

        Raises:
            ConfigError: an argument is out of bounds.
            SpaceError: ``dict_key`` is taken, or the observation cannot be flattened.
            WrapperOrderError: ``remaining`` (or ``scale``) without a ``ComputeLimit`` inside.
        """
        flatten = require_arguments(what, flatten, dict_key)
        RecordConstructorArgs.__init__(
            self, what=what, flatten=plain(flatten), scale=plain(scale), draw=plain(draw), dict_key=dict_key
        )
        gym.Wrapper.__init__(self, env)

        self._limited = env.has_wrapper_attr("limit_report")
        require_sense(env, what, scale, draw, self._limited)
        self._given = GivenShare(draw)
        self._what = what
        self._scale = scale if scale is not None or not self._limited else env.get_wrapper_attr("budget_unit")
        self._flatten = flatten
        self._key = dict_key
        self._inner_space = env.observation_space
        self.observation_space = (
            flat_space(env.observation_space) if flatten else nested_space(env.observation_space, dict_key)
        )

    @property
    def adds_share_last(self) -> bool:
        """Whether the last number of an observation is a share that was given or drawn."""
        return self._what == "budget" and self._flatten and not self._limited

    @property
    def budget(self) -> float:
        """The number that is added, in [0, 1]."""
        if not self._limited:
            return self._given.value
        limit = self.env.get_wrapper_attr("episode").limit
        if self._what == "budget":
            return min(limit / self._scale, 1.0)
        return self.env.get_wrapper_attr("remaining") / limit

    @property
    def given_budget(self) -> float | None:
        """The share that was given and holds from the next reset on, ``None`` where it is drawn or never was given."""
        return self._given.given

    def set_budget(self, budget: float | None) -> None:
        """Set the budget from the next reset on.

        Args:
            budget: FLOPs an episode with a ``ComputeLimit`` inside, which it is passed to; else a share in [0, 1],
                or ``None`` to draw it, without ``draw`` for 1.

        Raises:
            ConfigError: it is out of bounds.
        """
        give = self.env.get_wrapper_attr("set_budget") if self._limited else self._given.give
        give(budget)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; ``options["budget"]``, which is passed on too, is the same as ``set_budget`` just before."""
        require_options(options)
        if not self._limited and options is not None and "budget" in options:
            self.set_budget(options["budget"])
        self._given.begin(seed)
        obs, info = self.env.reset(seed=seed, options=options)
        return self.observation(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and add the budget as it is after this step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.observation(obs), reward, terminated, truncated, info

    def observation(self, observation: Any) -> Any:
        """Return ``observation`` with the budget."""
        share = np.array([self.budget], dtype=np.float32)
        if self._flatten:
            return flat_with(self._inner_space, observation, share, self.observation_space.dtype)
        return nested_with(self._inner_space, observation, share, self._key)


def require_arguments(what: Any, flatten: Any, dict_key: Any) -> bool:
    """Check the arguments of ``BudgetAwareObservation`` that stand for themselves, and return ``flatten``.

    Raises:
        ConfigError: an unknown ``what``, a ``flatten`` that is not a bool, a ``dict_key`` that is not text.
    """
    if not isinstance(what, str) or what not in get_args(What):
        raise ConfigError(f"what={what!r}; expected one of {', '.join(get_args(What))}.")
    a_text("dict_key", dict_key)
    return a_flag("flatten", flatten)


def require_sense(env: gym.Env, what: What, scale: Any, draw: Any, limited: bool) -> None:
    """Refuse arguments of ``BudgetAwareObservation`` that mean nothing together.

    Raises:
        ConfigError: a scale that is no number of FLOPs, or a draw where nothing is drawn.
        WrapperOrderError: ``remaining`` or a scale without a ``ComputeLimit`` inside.
    """
    if not limited and (what == "remaining" or scale is not None):
        raise WrapperOrderError(
            f"BudgetAwareObservation(what={what!r}, scale={scale!r}) found no ComputeLimit inside {env}. Put it "
            "inside: BudgetAwareObservation(ComputeLimit(env, max_flops))."
        )
    if scale is not None:
        a_number("scale", scale, "FLOPs > 0", lambda number: number > 0)
    if draw is not None and (what != "budget" or limited):
        raise ConfigError(f"draw={draw!r} with what={what!r}: expected what='budget' and no ComputeLimit inside.")


class GivenShare:
    """A share of the budget that somebody gives, or that is drawn anew each episode.

    Args:
        draw: the ends it is drawn between, ``None`` for 1 unless given.

    Attributes:
        value: of this episode.

    Raises:
        ConfigError: ends that are no two shares in [0, 1], the lower one first.
    """

    def __init__(self, draw: Any) -> None:
        if draw is not None:
            if not isinstance(draw, tuple | list) or len(draw) != 2 or checked_share(draw[0]) > checked_share(draw[1]):
                raise ConfigError(f"draw={draw!r}; expected two shares in [0, 1], the lower one first.")
            draw = float(draw[0]), float(draw[1])
        self._draw, self._next = draw, None
        self._rng = np.random.default_rng()  # not the environment's, whose numbers stay as they are without us
        self.value = 1.0

    @property
    def given(self) -> float | None:
        """What ``give`` was told last."""
        return self._next

    def give(self, budget: float | None) -> None:
        """Have this share from the next episode on, ``None`` for a drawn one; raises ConfigError."""
        self._next = None if budget is None else checked_share(budget)

    def begin(self, seed: int | None) -> None:
        """Start an episode."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, DRAWS])
        if self._next is not None:
            self.value = self._next
        else:
            self.value = 1.0 if self._draw is None else float(self._rng.uniform(*self._draw))


def checked_share(budget: Any) -> float:
    """Return ``budget`` as a share.

    Raises:
        ConfigError: it is no number in [0, 1].
    """
    if isinstance(budget, bool) or not isinstance(budget, int | float | np.number) or not 0 <= budget <= 1:
        raise ConfigError(
            f"A budget of {budget!r}; expected a share in [0, 1]. A limit in FLOPs needs a ComputeLimit inside."
        )
    return float(budget)


def flat_space(space: spaces.Space) -> spaces.Box:
    """Return ``space`` flattened, with a budget last.

    Raises:
        SpaceError: its elements have no fixed length.
    """
    if not flattens(space):
        odd = [f"[{key!r}]" for key, part in space.spaces.items() if not flattens(part)] if is_dict(space) else []
        leave = f", or leave {' and '.join(odd)} out by gymnasium.wrappers.FilterObservation" if odd else ""
        raise SpaceError(
            f"{space} cannot be flattened into a vector of fixed length; expected Box, Discrete, MultiDiscrete or "
            f"MultiBinary spaces, or Dicts and Tuples of such; pass flatten=False{leave}."
        )
    flat = spaces.flatten_space(space)
    dtype = np.result_type(np.float32, *float_types(space))
    return spaces.Box(np.append(flat.low, 0.0).astype(dtype), np.append(flat.high, 1.0).astype(dtype), dtype=dtype)


def flattens(space: spaces.Space) -> bool:
    """Tell whether elements of ``space`` become vectors of one length: spaces of other libraries do not say."""
    try:
        return bool(space.is_np_flattenable) and isinstance(spaces.flatten_space(space), spaces.Box)
    except NotImplementedError:
        return False


def is_dict(space: spaces.Space) -> TypeGuard[spaces.Dict]:
    """Tell whether ``space`` has parts by name."""
    return isinstance(space, spaces.Dict)


def float_types(space: spaces.Space) -> list[np.dtype]:
    """Return the types of the floats in ``space``; flattening float32 beside integers makes float64 of both."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return [dtype for part in parts for dtype in float_types(part)]
    return [space.dtype] if space.dtype is not None and np.issubdtype(space.dtype, np.floating) else []


def flat_with(space: spaces.Space, observation: Any, share: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an element of ``space`` flattened, with ``share`` ``(1,)`` last."""
    return np.concatenate([spaces.flatten(space, observation), share], dtype=dtype, casting="unsafe")


def nested_with(space: spaces.Space, observation: Any, share: np.ndarray, key: str) -> Any:
    """Return an element of ``space``, or a batch of such, with ``share`` beside it."""
    if isinstance(space, spaces.Dict):
        return {**observation, key: share}
    if isinstance(space, spaces.Tuple):
        return (*observation, share)
    return {"obs": observation, key: share}


def nested_space(space: spaces.Space, key: str) -> spaces.Dict | spaces.Tuple:
    """Return ``space`` with a budget beside it.

    Raises:
        SpaceError: ``key`` is taken.
    """
    share = spaces.Box(0.0, 1.0, (1,), np.float32)
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple((*space.spaces, share))
    entries = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
    if key in entries:
        raise SpaceError(f"dict_key={key!r} is taken in {space}; choose another dict_key.")
    return dict_space({**entries, key: share}, space)


def dict_space(entries: dict[str, spaces.Space], like: spaces.Space) -> spaces.Dict:
    """Return a Dict space whose keys are sorted, or kept in order, as those of ``like`` are; sorted if it is no Dict.

    Gymnasium before 1.4 knows no ``sort_keys``: it sorts what is no ``OrderedDict``.
    """
    if hasattr(like, "sort_keys"):
        return spaces.Dict(entries, sort_keys=like.sort_keys)
    in_order = isinstance(like, spaces.Dict) and list(like.spaces) != sorted(like.spaces)
    return spaces.Dict(OrderedDict(entries) if in_order else entries)


__all__ = ["BudgetAwareObservation", "dict_space", "flattens"]
