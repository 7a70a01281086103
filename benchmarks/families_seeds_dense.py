"""The dense families over 20 seeds of initial weights: is anything violated? Raw numbers to results/families_seeds_dense.json.

python benchmarks/families_seeds_dense.py                       # what is missing of 20 seeds each
python benchmarks/families_seeds_dense.py --only "deep-relu digits {}" --again
"""

from __future__ import annotations

from pathlib import Path

from seeds import Case, run

OUT = Path(__file__).parent / "results" / "families_seeds_dense.json"
CASES = (
    Case("tangent", "digits:0,1"),
    Case("tangent", "breast-cancer"),
    Case("tangent", "diabetes"),
    Case("tangent", "digits"),
    Case("deep-relu", "digits:0,1"),
    Case("deep-relu", "breast-cancer"),
    Case("deep-relu", "digits:0,1", {"method": "gd-slope", "steps": 500}),
    Case("deep-relu", "wine"),
    Case("deep-relu", "digits"),
    Case("three-layer", "breast-cancer"),
    Case("three-layer", "wine"),
    Case("three-layer", "diabetes"),
)

if __name__ == "__main__":
    run(CASES, OUT, __doc__)
