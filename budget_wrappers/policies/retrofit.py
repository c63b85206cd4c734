"""Giving a trained actor early exits: outputs by imitation, gates by the budget program. The actor is not changed.

The trunk and the last exit are the actor's own weights, copied and frozen, so the last exit says what the actor says.
An exit before it is one linear layer on hidden features, fitted to what the actor does on states that both visit: data
aggregation as in Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning". Gates follow the program of "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks" over
batches, whose values are a critic's, or without one how little an exit differs from the last.

``B`` states, ``K`` exits.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from budget_wrappers.arguments import a_function, an_instance, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.exits import EarlyExitNetwork, resolved_depths
from budget_wrappers.policies.outputs import ActionMap, Meaning
from budget_wrappers.policies.rows import checked_rows
from budget_wrappers.policies.tensors import numpy_of
from budget_wrappers.selection.gates import GateTeacher

CHUNK = 4_096
"""States that go through the network at once where all of them do."""
_REMEDY = "pass TrainedActor(…, to_array=), which makes an input of the network of an observation"

Worth = Callable[[Tensor, Tensor], Tensor]
"""``(observation (B, inputs), what an exit says, by ActionMap.compared, (B, outputs)) -> (B,)``: a critic's value."""


@dataclass(frozen=True)
class TrainedActor:
    """What retrofitting has to know of a trained actor.

    Attributes:
        layers: its linear layers from input to output; they are read and never written.
        activation: between them, ``"relu"`` or ``"tanh"``.
        action_map: from its output to actions.
        worth: of what an exit says; ``None`` where there is no critic.
        to_array: from an observation of the environment, or rows of them, to the network's input, such as a
            normalisation.
    """

    layers: Sequence[nn.Linear]
    activation: str
    action_map: ActionMap
    worth: Worth | None = None
    to_array: Callable[[Any], np.ndarray] = np.asarray

    def __post_init__(self) -> None:
        if not isinstance(self.layers, list | tuple | nn.ModuleList) or not all(
            isinstance(layer, nn.Linear) for layer in self.layers
        ):
            refuse("layers", self.layers, "torch.nn.Linear layers from input to output")
        an_instance("action_map", self.action_map, ActionMap, "an ActionMap")
        a_function("worth", self.worth, optional=True)
        a_function("to_array", self.to_array)
        widths = [(layer.in_features, layer.out_features) for layer in self.layers]
        if len(widths) < 2 or any(before[1] != after[0] for before, after in itertools.pairwise(widths)):
            raise ConfigError(
                f"layers of {widths}: expected one hidden layer at least, each as wide as the next one's input"
            )
        if self.activation not in ("relu", "tanh"):
            raise ConfigError(f"activation={self.activation!r}: expected 'relu' or 'tanh' between all layers")
        wanted = len(self.action_map.low) or widths[-1][1]
        if widths[-1][1] != wanted:
            raise ConfigError(f"a last layer of {widths[-1][1]} outputs for {wanted} actions: expected as many")

    def row_of(self, observation: Any) -> np.ndarray:
        """Return one observation as a row of the network's input, ``(1, inputs)`` float32, a copy.

        Raises:
            SpaceError: ``to_array`` does not make a vector of that length of it.
            NonFiniteError: it is NaN or infinite somewhere.
        """
        return checked_rows(self.to_array(observation), self.layers[0].in_features, batches=False, remedy=_REMEDY)[0]

    @classmethod
    def of_module(
        cls,
        module: nn.Sequential,
        space: gym.Space,
        meaning: Meaning | None = None,
        worth: Worth | None = None,
        to_array: Callable[[Any], np.ndarray] = np.asarray,
    ) -> Self:
        """Return what retrofitting has to know of a perceptron that maps observations to actions of ``space``.

        Args:
            module: linear layers with ReLU or tanh between them; a tanh at the end is ``meaning="squash"``.
            space: of the actions.
            meaning: of the output, see ``ActionMap``; needed for a box unless the module ends in a tanh.
            worth: a critic, see the attribute; ``None`` for none.
            to_array: what the module's input is made by, see the attribute.

        Raises:
            ConfigError: anything else in ``module``, or a module that is no ``Sequential``.
            SpaceError: a space that is neither discrete nor a box of one dimension.
        """
        if not isinstance(module, nn.Sequential):
            raise ConfigError(
                f"a {type(module).__name__}: expected nn.Sequential of linear layers with ReLU or Tanh between them; "
                "what another module does with its parts cannot be read; put its layers into one in their order"
            )
        layers, activation, squashed = perceptron_of(module)
        return cls(layers, activation, ActionMap.of(space, "squash" if squashed else meaning), worth, to_array)


@dataclass(frozen=True)
class RetrofitConfig:
    """How exits are fitted to a trained actor.

    Attributes:
        exit_after: hidden layers before each exit, ascending, 0 for one on the observation. The last is the actor's
            own output. Empty for one after every layer, and on the observation where there is but one layer: a
            linear map of it acts badly, and what the gates give it others lack.
        steps: environment steps of each round of imitation.
        rounds: of imitation: the first on the actor's own states, the others on those of exits drawn at random.
        updates: gradient steps of the exits in a round, and of the gates for a budget.
        batch_size: states of one of them.
        learning_rate: Adam's step size, falling to 0 over the updates.
        program: ``"batch_budget"`` moves budget to the states that need it, ``"budget"`` gives every state the same.
        seed: of everything that is drawn.
    """

    exit_after: tuple[int, ...] = ()
    steps: int = 10_000
    rounds: int = 3
    updates: int = 4_000
    batch_size: int = 256
    learning_rate: float = 3e-3
    program: str = "batch_budget"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rounds", "updates", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected 1 or more")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate={self.learning_rate!r}: expected a number above 0")
        if self.program not in ("budget", "batch_budget"):
            raise ConfigError(f"program={self.program!r}: expected 'batch_budget' or 'budget'")


class Retrofit:
    """A trained actor that gets exits.

    Args:
        actor: what was trained.
        config: how.

    Attributes:
        network: with the exits fitted so far; its gates are those of the last budget.
        observations: states seen so far, as the network takes them, ``(N, inputs)``.
    """

    def __init__(self, actor: TrainedActor, config: RetrofitConfig | None = None) -> None:
        self.actor, self.config = actor, config or RetrofitConfig()
        self.network = network_of(actor, self.config)
        first = actor.layers[0].weight
        self.observations = first.new_empty(0, first.shape[1]).detach()
        self.rng = np.random.default_rng(self.config.seed)
        self.generator = torch.Generator(first.device).manual_seed(self.config.seed)

    def imitate(self, env: gym.Env) -> list[float]:
        """Fit the exits on states of ``env``, round by round; return the loss that each round ends at.

        Args:
            env: a single environment, without wrappers that read a meter, as acting here is charged to nobody.
        """
        return [self._round(env, number) for number in range(self.config.rounds)]

    def _round(self, env: gym.Env, number: int) -> float:
        seen = self.visited(env, number > 0)
        self.observations = torch.cat([self.observations, seen.to(self.observations)])
        features, last = self._frozen()
        outputs = self.network.outputs

        def distance(rows: Tensor) -> Tensor:
            """Return how far the exits are from the last one: mean square, summed over exits."""
            heads = zip(features, self.network.exits, strict=False)
            said = [linear(x[rows], head.weight[:outputs], head.bias[:outputs]) for x, head in heads]
            difference = self.actor.action_map.difference(torch.stack(said), last[rows])
            return difference.square().mean((1, 2)).sum()

        losses = self._descend(distance)
        return float(np.mean(losses[-100:]))

    @torch.no_grad()
    def _frozen(self) -> tuple[list[Tensor], Tensor]:
        """Return what no gradient step changes, for all states seen: each exit's features but the last, its output.

        It is computed once and not for every batch: the trunk is most of the work.
        """
        features: list[list[Tensor]] = [[] for _ in self.network.exits]
        for x in self.observations.split(CHUNK):
            for stage, found in zip(self.network.stages, features, strict=True):
                x = stage(x)
                found.append(x)
        *inner, deepest = [torch.cat(found) for found in features]
        return inner, self.network.exits[-1](deepest)

    def visited(self, env: gym.Env, mixed: bool) -> Tensor:
        """Return the states of some episodes, ``(steps, inputs)``.

        Args:
            env: see ``imitate``.
            mixed: whether an exit, drawn anew now and then, acts in place of the actor: states that exits lead to are
                states in which they must know what to do.
        """
        found, exits, exit_index = [], len(self.network.exits), len(self.network.exits) - 1
        over = True
        for _ in range(self.config.steps):
            if over:
                observation, _ = env.reset(seed=int(self.rng.integers(2**31)))
            # A copy: some environments write each observation into the same array.
            row = self.actor.row_of(observation)
            found.append(row)
            if mixed and (over or self.rng.random() < 0.05):
                exit_index = int(self.rng.integers(exits))
            x = torch.as_tensor(row).to(self.observations)
            action = self.actor.action_map.actions(numpy_of(self.network.at(x, exit_index)))[0]
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        return torch.as_tensor(np.concatenate(found))

    def teach_gates(self, budget: float) -> None:
        """Fit the gates to a mean cost of ``budget`` on the states seen: 0 for the first exit, 1 for the last.

        Raises:
            InfeasibleBudgetError: below 0 or NaN.
            ConfigError: called before ``imitate``.
        """
        if not len(self.observations):
            raise ConfigError("no states have been seen: expected imitate(env) before teach_gates(budget)")
        teacher = GateTeacher(self.network.flops, budget, self.config.program, "mixture")
        features, _ = self._frozen()
        # Exits keep what they say while their gates learn, so that the critic has to be asked once only.
        values = torch.cat([self.values(x, self.network.every(x)).t() for x in self.observations.split(CHUNK)])

        def loss_of(rows: Tensor) -> Tensor:
            gates = zip(features, self.network.exits, strict=False)
            logits = torch.cat([linear(x[rows], gate.weight[-1:], gate.bias[-1:]) for x, gate in gates], 1)
            return teacher.losses(logits, values[rows]).sum()

        self._descend(loss_of)

    @torch.no_grad()
    def values(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what each exit is worth in each state, ``(K, B)``.

        Args:
            x: shape ``(B, inputs)``.
            output: of every exit, ``(K, B, outputs)``.
        """
        said = self.actor.action_map.compared(output)
        if self.actor.worth is not None:
            return torch.stack([self.actor.worth(x, each) for each in said])
        if self.actor.action_map.meaning == "argmax":
            # What the last layer itself says of an exit's choice.
            return said[-1].gather(1, said.argmax(2).t()).t()
        return -(said - said[-1]).square().sum(2)

    def _descend(self, loss_of: Callable[[Tensor], Tensor]) -> list[float]:
        """Take gradient steps of whatever is not frozen on batches of the states seen; return their losses.

        Args:
            loss_of: indices of states, ``(B,)`` -> a scalar.
        """
        config = self.config
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.updates)
        losses = []
        for _ in range(config.updates):
            rows = torch.randint(
                len(self.observations), (config.batch_size,), generator=self.generator, device=self.observations.device
            )
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        return losses


def perceptron_of(parts: Iterable[nn.Module]) -> tuple[list[nn.Linear], str, bool]:
    """Return the linear layers of a perceptron, the activation between them, and whether it ends in a tanh.

    Raises:
        ConfigError: it is none: other layers, two activations, or two layers without one.
    """
    listed = [part for part in parts if not isinstance(part, nn.Flatten | nn.Identity)]
    squashed = bool(listed) and isinstance(listed[-1], nn.Tanh)
    inner = listed[:-1] if squashed else listed
    layers, between = inner[::2], inner[1::2]
    names = {type(part).__name__.lower() for part in between}
    plain = all(isinstance(layer, nn.Linear) for layer in layers) and len(layers) == len(between) + 1
    if not plain or len(layers) < 2 or len(names) != 1 or not names <= {"relu", "tanh"}:
        raise ConfigError(
            f"layers {[type(part).__name__ for part in listed]}: expected Linear, ReLU or Tanh, …, Linear; exits can "
            "be added to perceptrons only"
        )
    return layers, names.pop(), squashed


def network_of(actor: TrainedActor, config: RetrofitConfig) -> EarlyExitNetwork:
    """Return a network with the actor's weights in its trunk and last exit, frozen, and exits that say nothing yet.

    Raises:
        ConfigError: exits that are no depths of the trunk, or none before the last.
    """
    *hidden, last = actor.layers
    depths = resolved_depths(len(hidden), config.exit_after or range(int(len(hidden) > 1), len(hidden) + 1))
    if depths[-1] != len(hidden) or len(depths) < 2:
        raise ConfigError(
            f"exit_after={depths}: expected {len(hidden)}, the actor's own output, as the last and one before it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        widths = [layer.out_features for layer in hidden]
        network = EarlyExitNetwork(hidden[0].in_features, last.out_features, widths, depths, actor.activation)
    network = network.to(last.weight)
    copies = [part for stage in network.stages for part in stage if isinstance(part, nn.Linear)]
    for copy, layer in zip([*copies, network.exits[-1]], [*hidden, last], strict=True):
        with torch.no_grad():
            copy.weight.copy_(layer.weight)
            copy.bias.copy_(layer.bias if layer.bias is not None else torch.zeros_like(copy.bias))
        copy.requires_grad_(False)
    return network


__all__ = ["Retrofit", "RetrofitConfig", "TrainedActor", "Worth", "network_of", "perceptron_of"]
