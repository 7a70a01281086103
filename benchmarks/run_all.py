"""Regenerate the raw numbers of the speed benchmarks under results/, in under five minutes.

    python benchmarks/run_all.py            # needs the dev extra (torch)

The promises on real data take longer and have their own script, promises.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run every speed_*.py that is a script, each in its own process."""
    here = Path(__file__).parent
    for script in sorted(here.glob("speed_*.py")):
        if script.stem != "speed_problems":
            print(f"== {script.name}", flush=True)
            subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True, cwd=here)


if __name__ == "__main__":
    main()
