"""One network in the ways that a meter tells apart."""

import pytest
from torch import Tensor, nn


class Custom(nn.Module):
    """The same network with a forward of its own, so that nothing is known about it beforehand."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Declared(Custom):
    static_flops = True


class Reporting(nn.Module):
    """An early-exit network that knows what its last forward cost."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def flops_of_last_forward(self) -> int:
        return self.flops

    def forward(self, x: Tensor) -> Tensor:
        self.flops = 10 * len(x)
        return x


WRAPS = pytest.mark.parametrize("wrap", [lambda net: net, Custom, Declared], ids=["static", "counted", "declared"])
