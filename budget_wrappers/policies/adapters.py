"""Adapters that make a function or an agent a sub-policy: ``FunctionPolicy`` and ``AgentPolicy``."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from budget_wrappers.arguments import a_flag, a_function, a_text
from budget_wrappers.core import Convention
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.functional.costs import validate_flops
from budget_wrappers.metering.checks import check_convention
from budget_wrappers.policies.tensors import stacked


def whole_flops(flops: int, name: str) -> int:
    """Return the declared cost of one sub-policy as an int.

    Raises:
        CostError: it is NaN, negative or not whole.
    """
    return int(validate_flops([flops], f"flops of sub-policy {name!r}")[0])


def reset_of(holder: Any, given: Callable[[], Any] | None, name: str) -> Callable[[], Any] | None:
    """Return what makes ``holder`` forget: what was ``given``, else its own ``reset()``, else None.

    Raises:
        ConfigError: what was given cannot be called without arguments.
    """
    if given is None:
        own = getattr(holder, "reset", None)
        return own if callable(own) and _callable_bare(own) else None
    if not (callable(given) and _callable_bare(given)):
        raise ConfigError(
            f"reset={given!r} of sub-policy {name!r}; expected a function without arguments, called when an episode "
            "begins."
        )
    return given


def _callable_bare(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


class FunctionPolicy:
    """A sub-policy made of a function and a declared cost: a rule, a controller, a foreign engine.

    Attributes:
        convention: what ``flops`` counts.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        flops: int,
        name: str | None = None,
        *,
        convention: Convention = "matmul",
        reset: Callable[[], Any] | None = None,
    ) -> None:
        """Adapt ``function``.

        Args:
            function: one observation to one action.
            flops: FLOPs of one call at most, in ``convention``; 0 for a rule.
            name: unique among its siblings; the function's own name when None.
            convention: what ``flops`` counts; that of the meter that pays for it.
            reset: makes a function with memory forget (a controller's integral, a filter); called when an episode
                begins. The function's own ``reset()`` when None.

        Raises:
            CostError: ``flops`` is NaN, negative or not whole.
            ConfigError: ``function`` cannot be called, ``name`` is not text, ``convention`` is unknown, ``reset``
                cannot be called without arguments.
        """
        a_function("function", function)
        self.name = a_text("name", getattr(function, "__name__", type(function).__name__) if name is None else name)
        self.flops, self.convention = whole_flops(flops, self.name), check_convention(convention)
        self._function = function
        if (forget := reset_of(function, reset, self.name)) is not None:
            self.reset, self.memory_holder = forget, function

    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation``."""
        return self._function(observation)

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


class AgentPolicy:
    """A sub-policy made of an agent as in Stable-Baselines3: ``predict(obs, deterministic) -> (action, state)``.

    Where ``predict`` takes ``state=``, the state that it returns is the memory of an episode. Wrappers keep it for each
    of their environments apart (``core.RecurrentSubPolicy``); call ``reset`` between episodes where you call the policy
    yourself. An agent that is not called at a step, as another sub-policy acts, remembers nothing of that step.

    Attributes:
        convention: what ``flops`` counts.
        remembers: whether a state was handed back so far.
    """

    def __init__(
        self,
        agent: Any,
        flops: int,
        name: str | None = None,
        deterministic: bool = True,
        batched: bool = False,
        *,
        convention: Convention = "matmul",
    ) -> None:
        """Adapt ``agent``.

        Args:
            agent: anything with ``predict``; its own ``reset()``, where it has one, is called as an episode begins.
            flops: FLOPs of one ``predict`` on one observation, in ``convention``.
            name: unique among its siblings; the agent's class when None.
            deterministic: passed to ``predict``.
            batched: whether ``predict`` takes several observations at once, too, as Stable-Baselines3's does.
            convention: what ``flops`` counts; that of the meter that pays for it.

        Raises:
            ConfigError: ``agent`` has no ``predict``, ``name`` is not text, ``deterministic`` or ``batched`` is not a
                bool, or ``convention`` is unknown.
            CostError: ``flops`` is NaN, negative or not whole.
        """
        if not callable(getattr(agent, "predict", None)):
            raise ConfigError(f"{agent!r} has no predict(observation, deterministic=…); use FunctionPolicy.")
        self.agent = agent
        self.name = type(agent).__name__ if name is None else a_text("name", name)
        self.flops, self.convention = whole_flops(flops, self.name), check_convention(convention)
        self.deterministic, batched = a_flag("deterministic", deterministic), a_flag("batched", batched)
        self._forget = reset_of(agent, None, self.name)
        self.batched = batched and self._forget is None
        self.remembers = False
        self._takes_state, self._memory = _takes_state(agent.predict), None

    @property
    def memory_holder(self) -> Any:
        """The agent where it keeps a memory in itself, else None: what ``predict`` hands back belongs to the caller."""
        return None if self._forget is None else self.agent

    @property
    def flops_of_last_call(self) -> int:
        """FLOPs of the last call on one observation, where the agent tells (``flops_spent``); else what is declared."""
        spent = getattr(self.agent, "flops_spent", None)
        return self.flops if spent is None else spent()

    def reset(self) -> None:
        """Forget what direct calls have left behind: an episode begins."""
        self._memory = None
        if self._forget is not None:
            self._forget()

    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation``, with the memory of the calls since ``reset``."""
        action, self._memory = self.act_with_memory(observation, self._memory)
        return action

    def act_with_memory(self, observation: Any, memory: Any) -> tuple[Any, Any]:
        """Return the action for ``observation``, and the memory after it.

        Args:
            observation: one, as the environment gives it.
            memory: what this returned before in this episode, None at its start.

        Raises:
            SpaceError: ``predict`` did not return an action and a state.
        """
        return self._predicted(observation, memory)

    def _predicted(self, observation: Any, memory: Any) -> tuple[Any, Any]:
        given = {} if memory is None else {"state": memory}
        told = self.agent.predict(observation, deterministic=self.deterministic, **given)
        if not isinstance(told, tuple) or len(told) < 2:
            raise SpaceError(
                f"predict of sub-policy {self.name!r} returned {told!r}; expected (action, state), state None without "
                "a memory. Adapt an agent that returns its action alone by FunctionPolicy(agent.predict, flops=…)."
            )
        memory = told[1] if self._takes_state else None  # what cannot be handed in again is not a memory
        self.remembers = self.remembers or memory is not None
        return told[0], memory

    def batch(self, observations: Sequence[Any]) -> Any:
        """Return the actions ``(B, …)`` for ``B`` observations, where the agent is ``batched``, without memory.

        Raises:
            ConfigError: the agent remembers.
        """
        actions, memory = self._predicted(stacked(observations), None)
        if memory is not None:
            raise ConfigError(
                f"Sub-policy {self.name!r} remembers, and got a batch of {len(observations)} observations without what "
                "it remembers of each. Call batch_with_memory(observations, memories)."
            )
        return actions

    def batch_with_memory(self, observations: Sequence[Any], memories: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Return ``B`` actions, and the memory after each; an agent that remembers acts on one after the other.

        Args:
            observations: ``B``, each of an environment of its own.
            memories: of the same environments, see ``act_with_memory``.
        """
        if not self.remembers:
            actions, memory = self._predicted(stacked(observations), None)
            if memory is None:
                return actions, memories
        told = [self.act_with_memory(*one) for one in zip(observations, memories, strict=True)]
        return [action for action, _ in told], [memory for _, memory in told]

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


def _takes_state(predict: Callable[..., Any]) -> bool:
    """Tell whether what ``predict`` hands back can be handed in again."""
    try:
        parameters = inspect.signature(predict).parameters
    except ValueError:  # a builtin without a signature
        return False
    return "state" in parameters


__all__ = ["AgentPolicy", "FunctionPolicy", "reset_of", "whole_flops"]
