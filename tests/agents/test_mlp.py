"""The hand-written perceptron against torch's own layers, and the engine that acts on its memory."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from agents.nets.mlp import MLP, smallest_value, squared_error
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron

ACTIVATIONS = ("relu", "tanh")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def gradients(net: MLP, output: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(output.square().sum(), net.parameters()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(5, 3), (5, 16, 1), (5, 16, 8, 3), (40, 8, 8, 2)])
def test_output_and_gradients_match_oracle(activation, sizes):
    net, x = MLP(sizes, activation), torch.randn(7, sizes[0], requires_grad=True)
    expected = nn.Sequential.forward(net, x)
    torch.testing.assert_close(net(x), expected)
    for ours, theirs in zip(gradients(net, net(x)), gradients(net, nn.Sequential.forward(net, x)), strict=True):
        torch.testing.assert_close(ours, theirs)
    (ours,) = torch.autograd.grad(net(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_output_is_the_same_without_gradients(mode):
    net, x = MLP((5, 16, 16, 3), "relu"), torch.randn(7, 5)
    with mode():
        assert torch.equal(net(x), net(x))
        torch.testing.assert_close(net(x), nn.Sequential.forward(net, x))


def test_two_networks_do_not_share_what_they_return():
    first, second, x = MLP((5, 16, 3), "relu"), MLP((5, 16, 3), "relu"), torch.randn(7, 5)
    with torch.no_grad():
        y = first(x)
        before = y.clone()
        second(x)
    assert torch.equal(y, before)


def test_forward_keeps_leading_dimensions():
    net, x = MLP((5, 16, 3), "tanh"), torch.randn(2, 4, 5)
    torch.testing.assert_close(net(x)[1], net(x[1]))


def smallest_by_torch(nets, observation, action):
    """The same by torch alone: head i of every net values action i, one head values them all."""
    x = torch.cat([observation.expand(len(action), -1, -1), action], -1)
    values = torch.stack([nn.Sequential.forward(net, x) for net in nets])
    heads = values.shape[-1]
    return (values.squeeze(-1) if heads == 1 else values.diagonal(dim1=1, dim2=3).transpose(1, 2)).amin(0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize(("heads", "actions"), [(1, 1), (1, 3), (3, 3), (4, 4)])
def test_smallest_value_matches_oracle(activation, members, heads, actions):
    nets = [MLP((5, 16, 16, heads), activation) for _ in range(members)]
    observation, action = torch.randn(9, 3), torch.randn(actions, 9, 2, requires_grad=True)
    upstream = torch.arange(9.0 * actions).view(actions, 9)
    ours, theirs = smallest_value(nets, observation, action), smallest_by_torch(nets, observation, action)
    torch.testing.assert_close(ours, theirs)
    (own,) = torch.autograd.grad((upstream * ours).sum(), action)
    (oracle,) = torch.autograd.grad((upstream * theirs).sum(), action)
    torch.testing.assert_close(own, oracle)


def test_smallest_value_gives_members_no_gradient():
    nets = [MLP((5, 16, 1), "relu") for _ in range(2)]
    smallest_value(nets, torch.randn(4, 3), torch.randn(1, 4, 2, requires_grad=True)).sum().backward()
    assert all(parameter.grad is None for net in nets for parameter in net.parameters())


@pytest.mark.parametrize("heads", [1, 2])
def test_smallest_value_is_the_same_without_gradients(heads):
    nets = [MLP((5, 16, heads), "relu") for _ in range(3)]
    observation, action = torch.randn(9, 3), torch.randn(2, 9, 2)
    with torch.no_grad():
        alone = smallest_value(nets, observation, action)
    assert torch.equal(alone, smallest_value(nets, observation, action))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("members", "heads"), [(1, 1), (2, 1), (3, 4)])
def test_squared_error_and_its_gradients_match_oracle(activation, members, heads):
    nets = [MLP((5, 16, 8, heads), activation) for _ in range(members)]
    x, target = torch.randn(9, 5), torch.randn(9, heads)
    parameters = [parameter for net in nets for parameter in net.parameters()]
    ours = squared_error(nets, x, target)
    theirs = sum(0.5 * (nn.Sequential.forward(net, x) - target).square().mean(0).sum() for net in nets)
    torch.testing.assert_close(ours, theirs)
    for own, oracle in zip(
        torch.autograd.grad(3 * ours, parameters), torch.autograd.grad(3 * theirs, parameters), strict=True
    ):
        torch.testing.assert_close(own, oracle)


def test_memory_first_used_in_inference_mode_serves_other_modes():
    net, x, outputs = MLP((5, 16, 16, 3), "relu"), torch.randn(7, 5), []

    def in_a_thread_of_its_own():
        with torch.inference_mode():
            outputs.append(net(x))
        with torch.no_grad():
            outputs.append(net(x))

    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start()
    thread.join()
    assert torch.equal(*outputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numpy_engine_sees_an_in_place_step(activation):
    net, x = MLP((5, 16, 16, 3), activation), torch.randn(7, 5)
    engine = NumpyPerceptron(net.linears, activation)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)
        torch.testing.assert_close(torch.as_tensor(engine(x.numpy())), net(x), rtol=1e-5, atol=1e-5)


def pruned(net: MLP) -> None:
    prune.l1_unstructured(net.linears[1], "weight", 0.5)


def parametrised(net: MLP) -> None:
    torch.nn.utils.parametrizations.weight_norm(net.linears[1])


def replaced(net: MLP) -> None:
    net.linears[1].weight = nn.Parameter(torch.randn(16, 16))


def assigned(net: MLP) -> None:
    net.load_state_dict({name: value + 0.1 for name, value in net.state_dict().items()}, assign=True)


def moved(net: MLP) -> None:
    net.linears[2].bias.data = net.linears[2].bias.data.clone()


@pytest.mark.parametrize("change", [pruned, parametrised, replaced, assigned, moved])
def test_numpy_engine_follows_a_module_whose_parameters_are_others_now(change):
    net, x = MLP((5, 16, 16, 3), "relu"), torch.randn(7, 5)
    engine = NumpyPerceptron(net.linears, "relu")
    change(net)
    for _ in range(2):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1)
            expected = slow(net, x)  # a pruned layer makes its weight when it runs
            torch.testing.assert_close(torch.as_tensor(engine(x.numpy())), expected, rtol=1e-5, atol=1e-5)


def slow(net: MLP, x: torch.Tensor) -> torch.Tensor:
    """Return what the layers give one after the other."""
    for layer in net:
        x = layer(x)
    return x


def frozen_layer(net):
    net[0].requires_grad_(False)


def hooked(net):
    net[2].register_forward_hook(lambda module, args, output: 2 * output)


CHANGES = {
    "frozen layer": frozen_layer,
    "appended": lambda net: net.append(nn.Tanh()),
    "pruned": lambda net: prune.l1_unstructured(net[2], "weight", 0.5),
    "parametrised": lambda net: nn.utils.parametrizations.weight_norm(net[2]),
    "hooked": hooked,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_network_runs_as_its_layers_say(change):
    net, x, target = MLP((5, 8, 8, 1), "relu"), torch.randn(7, 5), torch.randn(7, 1)
    CHANGES[change](net)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def both(ours, theirs):
        torch.testing.assert_close(ours, theirs)
        pairs = zip(torch.autograd.grad(ours, trainable), torch.autograd.grad(theirs, trainable), strict=True)
        for own, oracle in pairs:
            torch.testing.assert_close(own, oracle)

    both(net(x).square().sum(), slow(net, x).square().sum())
    both(squared_error([net], x, target), 0.5 * (slow(net, x) - target).square().mean())
    action = x[:, 3:].clone().requires_grad_()
    values = smallest_value([net, net], x[:, :3], action[None])
    torch.testing.assert_close(values.t(), slow(net, x)[:, :1])
    (gradient,) = torch.autograd.grad(values.sum(), action)
    assert gradient.abs().sum() > 0


def test_slice_is_a_plain_sequence_of_the_same_layers():
    net = MLP((5, 8, 1), "relu")
    part = net[:2]
    assert type(part) is nn.Sequential
    assert part[0] is net[0] and part[1] is net[1]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own use, in jvp
def test_transforms_of_torch_func_see_the_layers(activation):
    net, x = MLP((5, 8, 1), activation), torch.randn(7, 5)
    plain = nn.Sequential(*net)  # the same layers
    for ours, theirs in zip(*(transforms(module, x) for module in (net, plain)), strict=True):
        torch.testing.assert_close(ours, theirs)


def transforms(module, x):
    parameters = dict(module.named_parameters())

    def loss(values, row):
        return torch.func.functional_call(module, values, (row,)).square().sum()

    with torch.no_grad():
        batched = torch.func.vmap(module)(x)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    return [batched, *each.values(), torch.func.hessian(lambda row: loss(parameters, row))(x[0])]
