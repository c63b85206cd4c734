"""What does compute buy? Train small, large and asymmetric policies, and draw return against FLOPs.

Far too short to learn anything: the defaults of ``TradeoffConfig``, which ``budget tradeoff`` uses, take minutes.
"""

from pathlib import Path

from rich.console import Console

from agents.report.report import terminal_table, write_report
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

if __name__ == "__main__":  # worker processes import this file
    config = TradeoffConfig(
        steps=300, seeds=(0,), weights=(0.01,), batch_size=32, episodes=2, eval_every=150, workers=1
    )
    folder = Path("runs") / "example"
    run_tradeoff(config, folder)
    report = write_report([folder])
    Console().print(terminal_table(report.rows, config.env))
    print(f"picture: {report.picture}, report: {report.page}")
