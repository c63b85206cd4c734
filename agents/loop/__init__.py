"""The loop that every agent shares: stepping, storing, updating, saving, evaluating."""
