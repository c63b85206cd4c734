"""Budget methods, which any agent is given, and presets made of them."""
