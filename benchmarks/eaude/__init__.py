"""The studies of sparsity at the agent's own pace (EauDeQN), with the null model and the dense population beside it."""
