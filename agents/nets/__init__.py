"""Networks, optimizers, targets and noise."""
