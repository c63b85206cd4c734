"""All exits as one node: the numbers and gradients of the layers run one by one."""

import pytest
import torch
from torch import Tensor

from budget_wrappers.modules.exits import EarlyExitNetwork, ExitOutputs


def loss_of(said: ExitOutputs) -> Tensor:
    return said.output.square().sum() + (said.logits.sigmoid() * 3).sum()


def layer_by_layer(network: EarlyExitNetwork, x: Tensor) -> ExitOutputs:
    """Return what ``network`` says when a hook has it run as any module does."""
    hook = network.exits[0].register_forward_hook(lambda *_: None)
    said = network(x)
    hook.remove()
    return said


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("exit_after", [None, (1, 2), (0, 2), (0,), (2,), (0, 3)])
def test_values_and_gradients_are_those_of_the_layers(activation: str, exit_after: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    network = EarlyExitNetwork(5, 4, (8, 7, 6), exit_after, activation).double()
    x = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    one_node, layers = network(x), layer_by_layer(network, x)
    assert torch.equal(one_node.output, layers.output)
    assert torch.equal(one_node.logits, layers.logits)
    wanted = [x, *network.parameters()]
    gradients = zip(
        torch.autograd.grad(loss_of(one_node), wanted), torch.autograd.grad(loss_of(layers), wanted), strict=True
    )
    for own, theirs in gradients:
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    network = EarlyExitNetwork(3, 2, (4, 4), None, "tanh").double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: tuple(network(rows)), (x,))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own use, in jvp
def test_transforms_of_torch_func_see_the_layers(activation: str) -> None:
    """``grad``, ``jvp``, ``vmap``, one within the other, also where gradients are off outside."""
    torch.manual_seed(0)
    network = EarlyExitNetwork(3, 2, (4, 5), None, activation).double()
    x, towards = torch.randn(2, 6, 3, dtype=torch.float64)
    parameters = dict(network.named_parameters())

    def loss(values: dict[str, Tensor], rows: Tensor) -> Tensor:
        return loss_of(torch.func.functional_call(network, values, (rows,)))

    def every() -> list[Tensor]:
        with torch.no_grad():
            batched = torch.func.vmap(lambda row: network(row[None]).output)(x)
        per_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x[:, None])
        return [
            *torch.func.grad(loss)(parameters, x).values(),
            *torch.func.jvp(lambda rows: loss(parameters, rows), (x,), (towards,)),
            torch.func.hessian(lambda row: loss(parameters, row[None]))(x[0]),
            *per_row.values(),
            batched,
        ]

    ours = every()
    hook = network.exits[0].register_forward_hook(lambda *_: None)
    for own, theirs in zip(ours, every(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
    hook.remove()


def test_logits_alone_give_the_heads_no_gradient() -> None:
    network = EarlyExitNetwork(3, 2, (4, 4))
    gradients = torch.autograd.grad(network(torch.randn(6, 3)).logits.sum(), [e.weight for e in network.exits])
    assert all(float(weight[:2].abs().sum()) == 0 for weight in gradients)
    assert all(float(weight[2:].abs().sum()) > 0 for weight in gradients[:-1])


def test_a_pruned_layer_runs_as_it_was_changed() -> None:
    network = EarlyExitNetwork(3, 2, (4, 4))
    x = torch.randn(6, 3)
    torch.nn.utils.parametrize.register_parametrization(network.exits[0], "weight", torch.nn.Threshold(1e9, 0.0))
    assert float(network(x).output[0].detach().std(0).max()) == 0  # only its bias is left
