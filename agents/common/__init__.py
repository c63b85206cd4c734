"""What the agents share: configuration, networks, replay, the training loop, checkpoints, logs and reports."""
