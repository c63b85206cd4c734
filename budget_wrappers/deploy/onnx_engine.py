"""Acting by ONNX Runtime: a perceptron as an ONNX graph of its own, one thread, no Python between its layers.

The weights are copied: what is trained on is not followed. ``pip install 'budget-wrappers[onnx]'``.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from budget_wrappers.errors import MissingExtraError
from budget_wrappers.modules.units import evaluated_weight

_OPERATORS = {"relu": "Relu", "tanh": "Tanh"}
_OPSET, _IR = 17, 8
"""Old enough for any ONNX Runtime of these years."""


class OnnxPerceptron:
    """``W_L · f(… f(W_1 · x + b_1) …) + b_L`` for float32 rows.

    Args:
        linears: layers from input to output.
        activation: ``"relu"`` or ``"tanh"``, between layers.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """

    def __init__(self, linears: Sequence[nn.Linear], activation: str) -> None:
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        # At batch 1 a second thread costs more than it does.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = graph_of(linears, activation)
        self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``x`` ``(n, in)``."""
        return self._session.run(None, {"x": x})[0]


def graph_of(linears: Sequence[nn.Linear], activation: str) -> Any:
    """Return the perceptron as an ONNX model: input ``x``, output ``y``, any number of rows.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    onnx = _package("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes, weights, before = [], [], "x"
    for number, layer in enumerate(linears):
        last = number == len(linears) - 1
        after, names = "y" if last else f"z{number}", (f"W{number}", f"b{number}")
        bias = np.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().cpu().numpy()
        for name, value in zip(names, (evaluated_weight(layer).cpu().numpy(), bias), strict=True):
            weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        nodes.append(helper.make_node("Gemm", [before, *names], [after], transB=1))
        if not last:
            nodes.append(helper.make_node(_OPERATORS[activation], [after], [f"h{number}"]))
            before = f"h{number}"
    ends = [
        helper.make_tensor_value_info(name, floats, ["rows", size])
        for name, size in (("x", linears[0].in_features), ("y", linears[-1].out_features))
    ]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"engine='onnxruntime' needs {name}, which cannot be imported ({error}): expected `import {name}` to work; "
            "pip install 'budget-wrappers[onnx]'"
        ) from error


__all__ = ["OnnxPerceptron", "graph_of"]
