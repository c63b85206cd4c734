"""How the page of a report looks: the stored demonstration's, in a wide and a narrow window, light and dark.

    python -m benchmarks.page_pictures

Writes ``docs/images/page-<wide|narrow>-<light|dark>.png`` and ``docs/images/tradeoff.png``; it needs Chromium or
Chrome.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from agents.report.report import write_report
from agents.report.tradeoff import FILE_NAME
from benchmarks.browser import NAMES, browser, find_browser

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "benchmarks" / "results" / "tradeoff" / "half-cheetah.json"
IMAGES = ROOT / "docs" / "images"
WINDOWS = {"wide": (1280, 1000), "narrow": (360, 780)}


def main() -> None:
    """Write the pictures."""
    program = find_browser()
    if program is None:
        sys.exit(f"none of {', '.join(NAMES)} is installed: expected a browser; apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder, profile = Path(name) / "run", Path(name) / "profile"
        folder.mkdir()
        shutil.copy(STORED, folder / FILE_NAME)
        report = write_report([folder])
        shutil.copy(report.picture, IMAGES / "tradeoff.png")
        with browser(program, profile) as tab:
            for window, (width, height) in WINDOWS.items():
                for scheme in ("light", "dark"):
                    tab.open(report.page, width, scheme, height)
                    path = IMAGES / f"page-{window}-{scheme}.png"
                    path.write_bytes(tab.picture())
                    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
