"""SAC's temperature, whose derivative is written out."""

import numpy as np
import pytest
import torch

from tests.agents.small import make_agent, make_env, make_vector


@pytest.mark.parametrize("log_prob", [[[-9.0, 2.0]], [[4.0, 4.5], [7.0, 1.0]]])
def test_temperature_steps_down_its_loss(log_prob) -> None:
    agent, log_prob = make_agent("sac", ent_coef_init=0.3), torch.tensor(log_prob)
    log_alpha = agent.log_ent_coef.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([log_alpha], lr=agent.config.learning_rate)
    for _ in range(5):
        loss = -(log_alpha * (log_prob + agent.target_entropy)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reported = agent._step_temperature(log_prob)["temperature_loss"]
        torch.testing.assert_close(reported, loss.detach())
        torch.testing.assert_close(agent.log_ent_coef.detach(), log_alpha.detach())


@pytest.mark.parametrize("mode", [None, "SAME_STEP", "NEXT_STEP"])
def test_correlated_noise_is_on_training_only_and_ends_with_the_episode(mode) -> None:
    # 25 steps an episode: after 25, and not before, the noise is back at 0. Three environments end together.
    env = make_env("Pendulum-v1") if mode is None else make_vector("Pendulum-v1", mode)
    streams = 1 if mode is None else 3
    agent = make_agent("sac", env, correlated_noise=0.5)
    agent.learn(24 * streams)
    assert agent.num_timesteps == 24 * streams
    assert agent.noise.value.shape == (streams, 1) and agent.noise.value.all()
    observation = np.zeros(3, np.float32)
    assert agent.predict(observation)[0] == agent.predict(observation)[0]
    agent.learn(25 * streams)
    assert not agent.noise.value.any()
