"""Many trainings as one study: comparisons, searches, tables."""
