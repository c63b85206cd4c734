"""A torch module as a sub-policy: ``ModulePolicy``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from budget_wrappers.arguments import a_function, a_text, an_instance
from budget_wrappers.core import Convention
from budget_wrappers.errors import CostError, SpaceError, UncountableError
from budget_wrappers.metering import CountingMode, count_flops
from budget_wrappers.metering.counting import eagerly, original
from budget_wrappers.metering.evaluation import evaluating, mode_dependent
from budget_wrappers.metering.structure import is_static
from budget_wrappers.modules.weights import require_finite_weights
from budget_wrappers.policies.adapters import reset_of, whole_flops
from budget_wrappers.policies.tensors import (
    first_that_works,
    floating_of,
    layout_of,
    numpy_of,
    row_of,
    stacked,
    tensors_of,
)


class ModulePolicy:
    """A sub-policy made of a torch module, run without gradients and in evaluation mode on a batch of one.

    A module whose FLOPs follow from the shapes of its inputs is counted once (torch's own layers and ``Sequential`` of
    them, and classes with ``static_flops = True``). Any other may branch on what it observes: it is counted at every
    call, at several microseconds an operator, and a call above the declared cost raises.

    Observations are arrays, numbers, or dictionaries and tuples of such; ``act`` gets the same tree of tensors, on the
    module's device and in its float type. Whole numbers become floats, too, unless the module refuses these: then they
    are indices (int64), for embeddings.

    Attributes:
        batched: whether several observations can be one batch: where calls need not be counted, and nothing is
            remembered from one to the next.
        convention: what ``flops`` counts.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        act: Callable[[torch.nn.Module, Any], Any],
        example: Any,
        name: str | None = None,
        flops: int | None = None,
        *,
        convention: Convention = "matmul",
        reset: Callable[[], Any] | None = None,
    ) -> None:
        """Adapt ``module``.

        Args:
            module: the network; observations get the device and the type of its first floating-point parameter.
            act: ``(module, observations (B, …)) -> actions (B, …)``, e.g. ``lambda net, obs: net(obs).argmax(-1)``;
                ``B`` is 1 but in vector wrappers.
            example: one observation, to count the FLOPs of one call.
            name: unique among its siblings; the module's class when None.
            flops: the most that one call can cost, in ``convention``; what the example costs when None.
                Give it for a module that branches: the example takes one branch only.
            convention: what is counted; that of the meter that pays for it.
            reset: makes a module forget; called when an episode begins. A module's own ``reset()`` when None.

        Raises:
            CostError: ``flops`` is below what the example costs, NaN, negative or not whole.
            NonFiniteError: weights of ``module`` are not finite.
            SpaceError: ``act`` cannot act on the example, which the message describes.
            UncountableError: ``module`` is scripted, or the FLOPs of something in it cannot be counted.
            ConfigError: ``module`` is not a module, ``act`` cannot be called, ``convention`` is unknown, ``reset``
                cannot be called without arguments.
        """
        an_instance("module", module, torch.nn.Module, "a torch.nn.Module; for a function use FunctionPolicy")
        a_function("act", act)
        require_finite_weights(module, f"the module {type(module).__name__}")
        self.module, self._act = module, act
        self.name = type(module).__name__ if name is None else a_text("name", name)
        self.convention, self._like = convention, floating_of(module)
        self._layout = layout_of(example)
        if (forget := reset_of(module, reset, self.name)) is not None:
            self.reset, self.memory_holder = forget, module
        self._moody = mode_dependent(module)
        self._static = is_static(original(module))
        self.batched = self._static and forget is None
        one = stacked([example])

        def count(integers: Any) -> int:
            batch = tensors_of(one, self._like, integers)
            with evaluating(module):
                return int(count_flops(lambda given: act(module, given), batch, convention=convention))

        self._integers, counted = first_that_works(count, example, self.name)
        if forget is not None:
            forget()  # counting has run the module
        self.flops = counted if flops is None else whole_flops(flops, self.name)
        if self.flops < counted:
            raise CostError(
                f"flops={self.flops} of sub-policy {self.name!r} is below the {counted} FLOPs that the example costs; "
                "expected the most that one call can cost. Raise flops=."
            )

    @torch.no_grad()
    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation`` as numpy, without a batch dimension.

        Raises:
            CostError: this call ran more FLOPs than are declared.
            SpaceError: the observation is not laid out as the example is.
            UncountableError: it took a branch whose FLOPs cannot be counted.
        """
        actions = self._run([observation], observation)
        if type(actions) is not torch.Tensor or actions.dtype == torch.bfloat16:
            return row_of(numpy_of(actions), 0)
        action = actions[0].cpu().numpy()  # the common case does as little as can be
        return action if action.ndim else action[()]

    @torch.no_grad()
    def batch(self, observations: Sequence[Any]) -> Any:
        """Return the actions ``(B, …)`` for ``B`` observations; products of several rows may round in another way.

        Raises:
            UncountableError: each call of this module has to be counted, or it remembers what it was called with.
        """
        if not self.batched:
            why = "may branch on what it observes" if not self._static else "remembers what it was called with"
            raise UncountableError(
                f"Sub-policy {self.name!r} got {len(observations)} observations and its module {why}: nobody can tell "
                "what each of them costs. Call it with one after the other."
            )
        actions = numpy_of(self._run(observations, observations[0]))
        if isinstance(actions, dict | tuple):
            return [row_of(actions, row) for row in range(len(observations))]
        return actions

    def _run(self, observations: Sequence[Any], observation: Any) -> Any:
        try:
            if type(observation) is np.ndarray and len(observations) == 1 and self._integers == "as floats":
                given = torch.as_tensor(observation, dtype=self._like.dtype, device=self._like.device).unsqueeze(0)
            else:
                given = tensors_of(stacked(observations), self._like, self._integers)
            if self._moody and any(part.training for part in self._moody):
                with evaluating(self.module):
                    return self._act(self.module, given) if self._static else self._counted(given)
            return self._act(self.module, given) if self._static else self._counted(given)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            if (found := layout_of(observation)) != self._layout:
                raise SpaceError(
                    f"Sub-policy {self.name!r} got an observation of the shapes {found} ({error}); expected "
                    f"{self._layout}, as its example has. Pass what the environment returns."
                ) from error
            tensors_of(stacked(observations), self._like, self._integers)  # raises where it is not of numbers
            raise

    def _counted(self, batch: Any) -> Any:
        """Act and check what really ran: whoever pays has been told of the declared cost only."""
        with eagerly(), CountingMode(self.convention) as counter:
            actions = self._act(self.module, batch)
        if counter.refused is not None:  # the module may have caught it
            raise counter.refused
        if counter.flops > self.flops:
            raise CostError(
                f"Sub-policy {self.name!r} ran {counter.flops} FLOPs in one call and declares {self.flops}: its module "
                "took a dearer branch than its example did. Pass ModulePolicy(…, flops=): the most one call can cost."
            )
        return actions

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


__all__ = ["ModulePolicy"]
