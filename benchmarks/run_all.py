"""Regenerate the raw numbers of the speed benchmarks under results/, in about ten minutes.

    python benchmarks/run_all.py            # needs the dev extra (torch)

The promises on real data take longer and have their own script, promises.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "speed_descent",
    "speed_plans",
    "certify",
    "falsify",
    "weight_space",
    "tangent",
    "monitor_torch",
    "monitor_jax",
)


def main() -> None:
    """Run every script of `SCRIPTS`, each in its own process."""
    here = Path(__file__).parent
    for script in SCRIPTS:
        print(f"== {script}.py", flush=True)
        subprocess.run([sys.executable, f"{script}.py"], check=True, cwd=here)


if __name__ == "__main__":
    main()
