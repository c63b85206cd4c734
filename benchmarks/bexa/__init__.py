"""BEXA's study: early exits under budgets beside the plain agents."""
