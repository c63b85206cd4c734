"""Finding one's way in a stack of PettingZoo wrappers: who is inside, of which kind, and beyond which conversion."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NoReturn

from pettingzoo import AECEnv, ParallelEnv

from budget_wrappers.errors import ConfigError, WrapperOrderError

Agent = Hashable
"""An agent's name, text by PettingZoo's habit."""


def require_kind(env: Any, kind: type[AECEnv] | type[ParallelEnv], wrapper: Any) -> None:
    """Check that ``env`` has the API that ``wrapper`` is for, and that none of ours is beyond a conversion.

    Args:
        env: to be wrapped.
        kind: ``AECEnv`` or ``ParallelEnv``.
        wrapper: who asks.

    Raises:
        ConfigError: it has the other API, or none.
        WrapperOrderError: a wrapper of this package stands on the other side of a conversion between the two APIs.
    """
    name = type(wrapper).__name__
    if not isinstance(env, kind):
        other, convert = (
            ("aec", "aec_to_parallel") if isinstance(env, AECEnv) else ("parallel", "parallel_to_aec")
        )  # fmt: skip
        remedy = f"Use multi_agent.{other}.{name}, or convert it first: pettingzoo.utils.{convert}(env)."
        if not isinstance(env, AECEnv | ParallelEnv):
            remedy = f"For a Gymnasium environment use budget_wrappers.{name}."
        raise ConfigError(f"{name} got {env!r} of type {type(env).__name__}; expected a {kind.__name__}. {remedy}")
    own = list(layers(env))
    for layer in layers(env, beyond_conversions=True):
        ours = any(base.__module__.startswith(__package__) for base in type(layer).__mro__)
        if ours and not any(layer is mine for mine in own):
            raise WrapperOrderError(
                f"{type(layer).__name__} stands inside a conversion between PettingZoo's two APIs, and {name} outside: "
                "each would close the same meters, at different moments. Put all of them on one side of it."
            )


def layers(env: Any, beyond_conversions: bool = False) -> Iterator[Any]:
    """Yield ``env`` and what it wraps, outermost first, up to a conversion unless asked to look beyond."""
    kind = AECEnv if isinstance(env, AECEnv) else ParallelEnv
    while isinstance(env, AECEnv | ParallelEnv) and (beyond_conversions or isinstance(env, kind)):
        yield env
        own = vars(env)
        env = own.get("env", own.get("aec_env"))


def find_in_team(env: Any, name: str, default: Any = None) -> Any:
    """Return the public attribute ``name`` of ``env`` or of a layer inside it, else ``default``.

    PettingZoo's wrappers hand on public names only, and an order-enforcing one refuses some before the first reset, so
    layers are asked one by one.
    """
    for layer in layers(env):
        if name in vars(layer) or hasattr(type(layer), name):
            return getattr(layer, name)
    return default


def agents_of(env: Any) -> tuple[Agent, ...] | None:
    """Return every agent that may appear, or None where the environment does not say."""
    possible = getattr(env, "possible_agents", None)
    return None if possible is None else tuple(possible)


def require_agents(env: Any, wrapper: Any) -> tuple[Agent, ...]:
    """Return every agent that may appear.

    Raises:
        ConfigError: the environment does not say.
    """
    agents = agents_of(env)
    if agents is None:
        raise ConfigError(
            f"{type(wrapper).__name__} needs to know all agents beforehand; {env} has no possible_agents."
        )
    return agents


def each(value: Any, agents: tuple[Agent, ...], what: str) -> dict[Agent, Any]:
    """Return one value an agent: of a mapping, which may leave agents out, or the same for all.

    Raises:
        ConfigError: a mapping names an unknown agent.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(agents, value)
    for agent in value:
        if agent not in agents:
            unknown_agent(agent, agents, what)
    return dict(value)


def require_each(value: Mapping[Agent, Any], agents: tuple[Agent, ...], what: str) -> None:
    """Check that no agent was left out.

    Raises:
        ConfigError: one was.
    """
    missing = [agent for agent in agents if agent not in value]
    if missing:
        raise ConfigError(f"{what} has nothing for {missing!r}; expected an entry for each of {list(agents)!r}.")


def unknown_agent(agent: Agent, agents: tuple[Agent, ...], what: str) -> NoReturn:
    """Raise ConfigError: ``what`` names an agent that nobody knows."""
    raise ConfigError(f"{what} names the agent {agent!r}; known agents are {list(agents)!r}.")


__all__ = ["Agent", "agents_of", "each", "find_in_team", "layers", "require_agents", "require_each", "require_kind"]
