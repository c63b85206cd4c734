"""``python -m agents.cli`` is ``budget``."""

import sys

from agents.cli import main

sys.exit(main())
