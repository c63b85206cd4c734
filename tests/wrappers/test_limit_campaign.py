"""ComputeLimit under random failures, single, team and vector: a short run of the benchmark."""

import gymnasium as gym
import pytest


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="the benchmark sets autoreset modes")
def test_no_failure_makes_a_hard_limit_soft() -> None:
    """The law, against adversaries; benchmarks/limit_failures.py makes 150,000 decisions of it."""
    from benchmarks.limit_failures import OVERRUN, blind_episode, campaign, single_episode, team_episode, vector_run

    for episode, decisions in ((single_episode, 600), (team_episode, 250), (vector_run, 800), (blind_episode, 120)):
        outcome = campaign(decisions, seed=7, episode=episode)
        overran = [one["problem"] for one in outcome.problems if one["problem"] == OVERRUN]
        assert [one for one in outcome.problems if one["problem"] != OVERRUN] == []
        assert not overran or episode is blind_episode
        assert outcome.blamed == 0
        assert sum(outcome.chaos.injected.values()) > 10
