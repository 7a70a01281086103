"""F1, F2, F3, F4 and the classical problems over 20 seeds: is anything violated? Raw numbers to results/families_seeds_scalar.json.

    python benchmarks/families_seeds_scalar.py                      # what is missing of 20 seeds each
    python benchmarks/families_seeds_scalar.py --only classical --seeds 2

A seed changes the initial weights (a single neuron and least squares start at the origin by default: --init-scale 0.1), for
phase retrieval the signal and the measurements, and under uniform draws the order of the rows.
"""

from __future__ import annotations

from pathlib import Path

from seeds import Case, run

OUT = Path(__file__).parent / "results" / "families_seeds_scalar.json"
NEAR = {"init_scale": 0.1}
LEAKY = {"init_scale": 0.1, "activation": "leaky-relu"}
CASES = (
    Case("classical", "diabetes", NEAR),
    Case("classical", "breast-cancer", NEAR),
    Case("classical", "wine", {"problem": "rank-one"}),
    Case("classical", "breast-cancer", {"problem": "rank-one"}),
    Case("classical", "digits:0,1", {"problem": "rank-one"}),
    Case("classical", "wine", {"problem": "phase-retrieval"}),
    Case("classical", "diabetes", {"problem": "phase-retrieval"}),
    Case("classical", "diabetes", {"problem": "linear-network"}),
    Case("classical", "wine:0,1", {"problem": "linear-network"}),
    Case("two-layer-ntk", "digits:0,1"),
    Case("two-layer-ntk", "breast-cancer"),
    Case("leaky-relu-noise", "digits:0,1"),
    Case("leaky-relu-noise", "breast-cancer"),
    Case("leaky-relu-hinge", "wine:0,1", {}, True),
    Case("leaky-relu-hinge", "digits:0,1", {}, True),
    Case("leaky-relu-hinge", "breast-cancer", {"steps": 300_000}, True),
    Case("single-neuron", "diabetes", NEAR, True),
    Case("single-neuron", "diabetes", LEAKY, True),
    Case("single-neuron", "linnerud:waist", LEAKY, True),
    Case("single-neuron", "wine:0,1", NEAR, True),
    Case("single-neuron", "digits:0,1", NEAR, True),
    Case("single-neuron", "digits:pixel-27", {**LEAKY, "steps": 50_000}, True),
)

if __name__ == "__main__":
    run(CASES, OUT, __doc__)
