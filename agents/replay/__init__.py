"""What was experienced: buffers, draws from them, and data sets on disk."""
