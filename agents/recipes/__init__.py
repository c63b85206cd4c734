"""An agent plus budget parts: wiring only, no maths."""
