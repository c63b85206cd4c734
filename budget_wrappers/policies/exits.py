"""The exits of one network as sub-policies, for somebody outside to choose among: ``ExitPolicy``.

``K`` exits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from budget_wrappers.arguments import a_function
from budget_wrappers.core import Convention
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import count_flops
from budget_wrappers.metering.checks import check_convention
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.weights import require_finite_weights
from budget_wrappers.policies.options import load_registered
from budget_wrappers.policies.rows import checked_rows
from budget_wrappers.policies.tensors import numpy_of, tensors_of

_REMEDY = "pass ExitPolicy(…, to_array=), what makes an input of the network of an observation"


class OneExit:
    """One exit of a network as a sub-policy; ``ExitPolicy`` makes it.

    Attributes:
        name: ``"exit 1"`` for the first.
        batched: several observations can be one batch.
        convention: what ``flops`` counts.
    """

    batched = True

    def __init__(self, policy: "ExitPolicy", exit_index: int) -> None:
        self._policy, self._exit_index = policy, exit_index
        self.name, self.convention = f"exit {exit_index + 1}", policy.convention

    @property
    def flops(self) -> int:
        """FLOPs of the trunk up to the exit and of its head, as they are now."""
        return self._policy.flops[self._exit_index]

    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation``."""
        return self._policy.action_at(observation, self._exit_index)

    def batch(self, observations: Sequence[Any]) -> list[Any]:
        """Return the action for each of ``observations``; a product of rows may round in another way."""
        return self._policy.actions_at(observations, self._exit_index)

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


class ExitPolicy:
    """A trained network with early exits, of which ``EarlyExitAction`` lets any agent choose one at each step.

    No gate is asked: whoever chooses stands outside and pays for itself. An exit costs the trunk up to it and its head.
    Agents with exits make one, ``agent.exit_policy()``.

    It holds references: weights that change in training are followed, and a deep copy is the policy itself, so that an
    agent goes on training the very network that acts.

    Attributes:
        network: as given.
        exits: ``K`` sub-policies, ``"exit 1"`` to ``"exit K"``, by depth.
        convention: what their FLOPs are counted in.
    """

    def __init__(
        self,
        network: EarlyExitNetwork,
        act: Callable[[np.ndarray], Any],
        to_array: Callable[[Any], np.ndarray] | None = None,
        at: Callable[[np.ndarray, int], np.ndarray] | None = None,
        *,
        convention: Convention = "matmul",
    ) -> None:
        """Adapt ``network``.

        Args:
            network: on any device.
            act: what one exit says, ``(outputs,)``, to one action of the environment, e.g. ``np.argmax``.
            to_array: one observation to the network's input, ``(inputs,)``; by default the observation is that.
            at: evaluates rows in place of ``network.at``, with the same arguments on numpy; on the CPU
                ``NumpyExits(network).at`` does it in less than half the time.
            convention: what is counted; that of the meter that pays for it.

        Raises:
            ConfigError: ``network`` is no ``EarlyExitNetwork``, or ``convention`` is unknown.
            NonFiniteError: weights of ``network`` are not finite.
        """
        if not isinstance(network, EarlyExitNetwork):
            raise ConfigError(
                f"network={network!r}; expected an EarlyExitNetwork. Of an agent with exits make agent.exit_policy()."
            )
        a_function("act", act)
        a_function("to_array", to_array, optional=True)
        a_function("at", at, optional=True)
        require_finite_weights(network, "the network with exits")
        self.network, self.convention = network, check_convention(convention)
        self._act, self._to_array, self._at = act, to_array, at
        self._counted: tuple[list[torch.Size], tuple[int, ...]] = [], ()
        self.exits = tuple(OneExit(self, number) for number in range(len(network.exits)))

    @property
    def flops(self) -> tuple[int, ...]:
        """FLOPs of each exit, counted anew after layers have changed size, ``(K,)``, in ``convention``."""
        shapes = [parameter.shape for parameter in self.network.parameters()]
        if shapes != self._counted[0]:
            example, exits = next(self.network.parameters()).new_zeros(1, self.network.inputs), range(len(self.exits))
            with evaluating(self.network):
                counted = [count_flops(self.network.at, example, n, convention=self.convention) for n in exits]
            self._counted = shapes, tuple(map(int, counted))
        return self._counted[1]

    @classmethod
    def of(cls, given: "ExitPolicy | str") -> "tuple[ExitPolicy, ExitPolicy | str]":
        """Return a policy, and what to record of it in a spec: a registered name as it is, as it serialises.

        Raises:
            ConfigError: the name is unknown; what was given or loaded is no ``ExitPolicy``.
        """
        policy = load_registered(given) if isinstance(given, str) else given
        if isinstance(policy, cls):
            return policy, given
        remedy = "Make one: agent.exit_policy() of an agent with early exits, or ExitPolicy(network, act)."
        if callable(getattr(policy, "exit_policy", None)):
            remedy = "Pass its exit_policy()."
        raise ConfigError(
            f"policy={policy!r} is no ExitPolicy; expected the exits of one network. {remedy} Policies that share no "
            "network are for SubPolicyAction."
        )

    def action_at(self, observation: Any, exit_index: int) -> Any:
        """Return the action that one exit takes, see ``actions_at``."""
        return self._act(self._output(self.row_of(observation), exit_index)[0])

    def actions_at(self, observations: Sequence[Any], exit_index: int) -> list[Any]:
        """Return the actions that one exit takes.

        Args:
            observations: each as the environment gives it.
            exit_index: 0 … K − 1, by depth.

        Raises:
            SpaceError: one is none of the network's inputs.
            NonFiniteError: one is NaN or infinite somewhere.
        """
        x = np.concatenate([self.row_of(observation) for observation in observations])
        return [self._act(output) for output in self._output(x, exit_index)]

    def row_of(self, observation: Any) -> np.ndarray:
        """Return one observation as a row of the network's input, ``(1, inputs)`` float32.

        Raises:
            SpaceError: it is none of the network's inputs.
            NonFiniteError: it is NaN or infinite somewhere.
        """
        given = observation if self._to_array is None else self._to_array(observation)
        return checked_rows(given, self.network.inputs, batches=False, remedy=_REMEDY)[0]

    def _output(self, x: np.ndarray, exit_index: int) -> np.ndarray:
        if self._at is not None:
            return self._at(x, exit_index)
        return numpy_of(self.network.at(tensors_of(x, next(self.network.parameters())), exit_index))

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExitPolicy":
        """Return the policy itself, see the class."""
        return self

    def __repr__(self) -> str:
        """Return names and costs."""
        return f"{type(self).__name__}({', '.join(f'{one.name}: {one.flops}' for one in self.exits)})"


__all__ = ["ExitPolicy", "OneExit"]
