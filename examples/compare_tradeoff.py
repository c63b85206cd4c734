"""What does compute buy? Train SAC, SAC with early exits and their controls, and draw return against FLOPs.

Far too short to learn anything: ``budget tradeoff --preset pendulum`` takes minutes.
"""

from pathlib import Path

from rich.console import Console

from agents.report.report import terminal_table, write_report
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff

if __name__ == "__main__":  # worker processes import this file
    config = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=("sac:16,16", "bexa-sac:16,16", "dense:4", "fit", "coin"),
        budgets=(0.3,),
        steps=300,
        seeds=(0,),
        batch_size=32,
        episodes=2,
        eval_every=150,
        workers=1,
    )
    folder = Path("runs") / "example"
    run_tradeoff(config, folder)
    report = write_report([folder])
    Console().print(terminal_table(report.rows, config.env[0]))
    print(f"picture: {report.picture}, report: {report.page}")
