"""Write a claim in weight space as a certificate: the document and its arrays, as `proxyconvex_checker` reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from proxyconvex_checker import document
from proxyconvex_checker.checking import CERTIFICATE
from proxyconvex_checker.initial import array_digest
from proxyconvex_checker.weights import certificate as weight_certificate
from proxyconvex_checker.weights import claims as weight_claims
from proxyconvex_checker.weights.claims import Subject


def write(
    subject: Subject,
    folder: str | os.PathLike[str],
    quantity: str,
    level: float,
    nu: float | None,
    shells: int,
) -> Path:
    """Write ``certificate.json`` and one ``.npy`` file per array; returns the path of the document."""
    from ... import __version__

    target = Path(folder)
    about = weight_claims.QUANTITIES[quantity]
    arrays = {k: np.ascontiguousarray(v, dtype="<f8") for k, v in subject.arrays.items()}
    phi = subject.activation
    stated = {
        "format": weight_certificate.FORMAT,
        "schema": weight_certificate.SCHEMA,
        "proxyconvex": __version__,
        "statement": weight_claims.statement(subject, quantity, level),
        "network": {
            "kind": subject.kind,
            "activation": {"name": phi.name, "slope": phi.slope, "beta": phi.beta if phi.smooth else 1.0},
            "layers": len(subject.weights),
            "scales": list(subject.scales),
            "trained": list(subject.trained),
            "output": subject.output,
        },
        "arrays": [
            {"name": k, "file": f"{k}.npy", "sha256": array_digest(v), "shape": list(v.shape)}
            for k, v in sorted(arrays.items())
        ],
        "region": {"radius": subject.radius},
        "claim": {
            "quantity": quantity,
            "side": "at least" if about.lower else "at most",
            "value": level,
            "evidence": "CERTIFIED",
        },
        "proof": {"nu": nu, "shells": shells},
    }
    raw = document.encode(stated)
    raw["seal"] = document.seal(raw)
    weight_certificate.parse(raw)
    target.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array, allow_pickle=False)
    path = target / CERTIFICATE
    # Replaced in one step, so that an interrupted write never leaves half a certificate.
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(raw, indent=1, ensure_ascii=True, allow_nan=False) + "\n", encoding="ascii")
    partial.replace(path)
    return path
