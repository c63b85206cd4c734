"""Training runs in folders: configuration, log, monitors, worker processes."""
