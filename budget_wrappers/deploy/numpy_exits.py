"""Acting with early exits and without torch: stages are evaluated until a gate opens, by numpy on the module's memory.

Rows that have left are compacted away: what is behind an open gate is not computed, for one row or for many.
"""

import numpy as np
import torch
from torch import nn

from budget_wrappers.deploy.numpy_engine import ACTIVATIONS, addresses_of
from budget_wrappers.functional.gates import LEAST_SHARE
from budget_wrappers.modules.exits import EarlyExitNetwork, require_exit


class NumpyExits:
    """``EarlyExitNetwork.leave`` for float32 rows, one exit that somebody else has chosen, and all for comparisons.

    A deep copy made together with the module evaluates the module's copy.

    Args:
        network: on the CPU.
    """

    def __init__(self, network: EarlyExitNetwork) -> None:
        self._network = network
        self._seen: object = None
        self.fits()

    def fits(self) -> bool:
        """Tell whether the network consists of nothing but the layers that are evaluated here.

        With any other part in it, torch runs the network.
        """
        if not self._network.as_made():
            return False
        if self._network.parts is not self._seen:  # a layer was replaced
            self._list()
        return True

    def _list(self) -> None:
        """List the layers of the network."""
        network = self._network
        self._seen = network.parts
        self._stages = [[part for part in stage if isinstance(part, nn.Linear)] for stage in network.stages]
        self._exits = list(network.exits)
        self._layers = [layer for stage in (*self._stages, self._exits) for layer in stage]
        self._outputs, self._reads_budget = network.outputs, network.reads_budget
        self._activation = network.activation  # its name: a function of one line cannot be pickled
        self._read()

    def _read(self) -> None:
        """View the parameters as arrays, and remember where they were."""
        self._places = addresses_of(self._layers)
        view = [[(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in s] for s in self._stages]
        self._trunk, self._heads, self._gates = view, [], []
        for layer in self._exits:
            weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
            self._heads.append((weight[:, : self._outputs], bias[: self._outputs]))
            self._gates.append((weight[:, -1], bias[-1:]))

    def leave(self, x: np.ndarray, draws: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the output of the exit that each row leaves at, ``(n, outputs)``, and which one, ``(n,)``.

        Args:
            x: shape ``(n, inputs)``.
            draws: uniform in [0, 1), shape ``(n, K − 1)``: gate i opens where its probability is above draw i. By
                default gates open from a probability of ½ on.
        """
        if not self.fits():
            drawn = None if draws is None else torch.tensor(draws)
            output, taken = self._network.leave(torch.tensor(x), drawn)
            return output.numpy(), taken.numpy()
        if addresses_of(self._layers) != self._places:
            self._read()
        if len(x) == 1:
            return self._leave_alone(x, draws)
        last = len(self._heads) - 1
        taken = np.full(len(x), last)
        output: np.ndarray | None = None
        inside: np.ndarray | None = None  # all rows, as long as none has left
        odds = log_odds(x[:, -1]) if self._reads_budget else None
        for number in range(last + 1):
            x = self._through(number, x)
            weight, bias = self._heads[number]
            if number == last:
                out = np.ones(len(x), dtype=bool)
            else:
                gate, offset = self._gates[number]
                logit = x @ gate + offset
                if odds is not None:
                    logit -= odds if inside is None else odds[inside]
                drawn = None if draws is None else draws[:, number] if inside is None else draws[inside, number]
                # σ(logit) > u without an overflow: σ(l) = (1 + tanh(l/2))/2
                out = logit >= 0 if drawn is None else np.tanh(0.5 * logit) > 2.0 * drawn - 1.0
                if not out.any():
                    continue
            if out.all() and inside is None:
                taken[:] = number
                return x @ weight + bias, taken
            if output is None:
                output, inside = np.empty((len(taken), self._outputs), dtype=np.float32), np.arange(len(taken))
            leaving = inside[out]
            output[leaving], taken[leaving] = x[out] @ weight + bias, number
            x, inside = x[~out], inside[~out]
            if not len(inside):
                break
        return output, taken

    def _leave_alone(self, x: np.ndarray, draws: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Do what ``leave`` does for one row, to the same numbers: without masks, which take longer than its layers."""
        last = len(self._heads) - 1
        odds = log_odds(x[0, -1]) if self._reads_budget else 0.0
        for number in range(last):
            x = self._through(number, x)
            gate, offset = self._gates[number]
            logit = (x @ gate + offset)[0] - odds
            if logit >= 0 if draws is None else np.tanh(0.5 * logit) > 2.0 * draws[0, number] - 1.0:
                break
        else:
            number = last
            x = self._through(last, x)
        weight, bias = self._heads[number]
        return x @ weight + bias, np.array([number])

    def every(self, x: np.ndarray) -> np.ndarray:
        """Return the output of each exit, ``(K, n, outputs)``; no gate is asked."""
        if not self.fits():
            return self._network.every(torch.tensor(x)).numpy()
        if addresses_of(self._layers) != self._places:
            self._read()
        outputs = []
        for number, (weight, bias) in enumerate(self._heads):
            x = self._through(number, x)
            outputs.append(x @ weight + bias)
        return np.stack(outputs)

    def at(self, x: np.ndarray, exit_index: int) -> np.ndarray:
        """Return the output of one exit, ``(n, outputs)``; no gate is asked, no other head and nothing deeper runs.

        Args:
            x: shape ``(n, inputs)``.
            exit_index: 0 … K − 1.

        Raises:
            IndexError: there is no such exit.
        """
        require_exit(exit_index, len(self._network.exits))
        if not self.fits():
            return self._network.at(torch.tensor(x), exit_index).numpy()
        if addresses_of(self._layers) != self._places:
            self._read()
        for number in range(exit_index + 1):
            x = self._through(number, x)
        weight, bias = self._heads[exit_index]
        return x @ weight + bias

    def last(self, x: np.ndarray) -> np.ndarray:
        """Return the output of the last exit, ``(n, outputs)``; no gate is asked and no other head runs."""
        return self.at(x, len(self._network.exits) - 1)

    def _through(self, number: int, x: np.ndarray) -> np.ndarray:
        f = ACTIVATIONS[self._activation]
        for weight, bias in self._trunk[number]:
            x = f(x @ weight + bias)
        return x


def log_odds(budget: np.ndarray) -> np.ndarray:
    """Return what ``budget_wrappers.functional.gates.budget_log_odds`` does."""
    share = np.clip(budget, np.float32(LEAST_SHARE), np.float32(1.0 - LEAST_SHARE))
    return np.log(share / (1 - share))


__all__ = ["NumpyExits"]
