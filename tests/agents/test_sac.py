"""SAC's temperature, whose derivative is written out."""

import pytest
import torch

from tests.agents.small import make_agent


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
