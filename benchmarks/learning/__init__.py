"""Learning studies, one script a table."""
