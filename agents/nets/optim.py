"""Adam with the bookkeeping done once: torch's fused kernel on lists that are built at the first step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``, to the bit, at a third of its overhead for small networks.

    ``Optimizer.step`` walks over groups, states and hooks at every call, which costs more than the update of a
    control policy's weights. All parameters of a control network step together, so one step counter serves them.

    Args:
        params: parameters, one group, all updated by every step; those that need no gradient are left out, unless
            none does.
        lr: step size.
        eps: added to the root of the second moment.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-8) -> None:
        given = list(params)
        super().__init__([param for param in given if param.requires_grad] or given, lr=lr, eps=eps, fused=True)
        self._lists: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]] | None = None

    def descend(self, loss: Tensor, max_norm: float | None = None) -> None:
        """Take one step down ``loss``; its gradients are not left in ``parameter.grad``, whose upkeep costs as much.

        Args:
            loss: a scalar.
            max_norm: bound of the Euclidean norm of the whole gradient, ``None`` for none.
        """
        gradients = torch.autograd.grad(loss, self.param_groups[0]["params"])
        self.apply(gradients if max_norm is None else clipped(gradients, max_norm))

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters from ``gradients``, given in their order."""
        group = self.param_groups[0]
        if self._lists is None:
            self._lists = self._build_lists()
        parameters, first, second, steps = self._lists
        steps[0].add_(1)
        torch._fused_adam_(
            parameters,
            [gradient.contiguous() for gradient in gradients],  # the kernel reads memory, not strides
            first,
            second,
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients, as any torch optimizer."""
        value = closure() if closure is not None else None
        self.apply([parameter.grad for parameter in self.param_groups[0]["params"]])
        return value

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lists = None  # copies of an optimizer step their own parameters

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._lists = None

    def _build_lists(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        parameters = list(self.param_groups[0]["params"])
        counter = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            else:
                counter.copy_(state["step"])
            state["step"] = counter
        states = [self.state[parameter] for parameter in parameters]
        moments = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        return parameters, *moments, [counter] * len(parameters)


def clipped(gradients: Sequence[Tensor], max_norm: float) -> Sequence[Tensor]:
    """Return the whole gradient, scaled down to the Euclidean norm ``max_norm`` where it is longer."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return torch._foreach_mul(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
