"""What the networks of the asymmetric study cost on its six tasks, computed from the networks.

``python -m benchmarks.asymmetric.costs``

Writes ``results/asymmetric/costs.md`` and ``costs.json``: FLOPs of one action and the cost ratio
``c = FLOPs(large) / FLOPs(small)`` in both conventions, beside the published ratio. The published one comes from
``(2·MAC_large + 3) / (2·MAC_small + 3)``, three scalar operations an action that neither convention of ours counts.
"""

import tomllib
from typing import Any

import torch

from agents.dqn import QNetwork
from agents.methods.asymmetric import AsymmetricConfig
from agents.nets.networks import GaussianActor
from agents.studies.names import PRESETS, presets_of
from benchmarks.card import RESULTS, store
from budget_wrappers import count_flops

FOLDER = RESULTS / "asymmetric"
SIZES = {
    "mountain-car": (2, 1),
    "swimmer": (8, 2),
    "ant": (111, 8),
    "fetch": (25 + 3 + 3, 4),
    "walker-stand": (24, 6),
    "finger-spin": (9, 2),
}
"""Numbers of an observation and of an action; a test holds them against the environments that can be made."""

PUBLISHED_RATIO = {
    "mountain-car": 44.7,
    "swimmer": 424.8,
    "ant": 8.0,
    "fetch": 9.4,
    "walker-stand": 18.1,
    "finger-spin": 29.1,
}


def settings_of(task: str) -> AsymmetricConfig:
    """Return the preset's configuration of both sub-policies and the master."""
    table = tomllib.loads((PRESETS / "asymmetric" / f"{task}.toml").read_text())
    return AsymmetricConfig.of({key: value for key, value in table.items() if key not in ("env", "steps")})


def costs_of(task: str) -> dict[str, Any]:
    """Return the row of one task."""
    config, (observation, action) = settings_of(task), SIZES[task]
    widths = {"small": config.small_net_arch, "large": config.net_arch}
    nets: dict[str, torch.nn.Module] = {
        name: GaussianActor(observation, action, net_arch, config.activation) for name, net_arch in widths.items()
    }
    nets["master"] = QNetwork(observation, 2, config.master_net_arch, config.master_activation)
    row: dict[str, Any] = {"task": task, "observation": observation, "action": action, **widths}
    for convention in ("matmul", "all"):
        flops = {
            name: count_flops(net, torch.zeros(1, observation), convention=convention) for name, net in nets.items()
        }
        row[convention] = {**flops, "ratio": flops["large"] / flops["small"]}
    flops = row["matmul"]
    row["published_rule"] = (flops["large"] + 3) / (flops["small"] + 3)
    row["published"] = PUBLISHED_RATIO[task]
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "FLOPs of one action: `matmul` counts matrix products alone, `all` biases and activations too. The master's",
        "are spent once in `hold` steps.",
        "",
        "| task | small | large | FLOPs small | large | master | c, `matmul` | FLOPs small | large | master | c, `all` "
        "| (2·MAC+3) rule | published |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = " | ".join(
            f"{row[kind]['small']:,} | {row[kind]['large']:,} | {row[kind]['master']:,} | {row[kind]['ratio']:.2f}"
            for kind in ("matmul", "all")
        )
        sizes = " | ".join("×".join(map(str, row[size])) for size in ("small", "large"))
        lines.append(f"| {row['task']} | {sizes} | {counts} | {row['published_rule']:.2f} | {row['published']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table."""
    rows = [costs_of(task) for task in presets_of("asymmetric")]
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = markdown(rows)
    (FOLDER / "costs.md").write_text(text)
    store(FOLDER / "costs.json", {"rows": rows})
    print(text)


if __name__ == "__main__":
    main()
