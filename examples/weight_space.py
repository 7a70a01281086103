"""What a trained network certainly does for every choice of weights in a ball, and the certificate of it.

python examples/weight_space.py
"""

from __future__ import annotations

import tempfile

import numpy as np

import proxyconvex as pc


def main() -> None:
    """Certify a ReLU network on its ball of weights, refute a claim that goes too far, write and re-check a certificate."""
    rng = np.random.default_rng(0)
    x, direction = rng.standard_normal((200, 16)), rng.standard_normal(16)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sign(x @ direction)
    half = rng.standard_normal((256, 16))
    weights = np.concatenate([half + 0.5 * direction, half - 0.5 * direction])

    space = pc.WeightSpace(pc.TwoLayerNetwork(pc.Activation("relu")), pc.Ball(weights, 0.5), x, y)
    print(space)
    print(pc.joint_flip_bound(weights, pc.Activation("relu"), x, y, 0.5))

    certified = space.bound("margin")
    print(space.certify("margin"))
    print(space.certify("margin", certified + 0.01))

    print(pc.certify_on_ball(space.network, space.region, x, y))
    with tempfile.TemporaryDirectory() as folder:
        space.write_certificate(folder, "tangent-loss")
        result = pc.verify(folder)
        print("ACCEPTED:" if result.accepted else "REJECTED:", result.statement)

    # A deep network, any depth: the centre is examined once, then every radius is cheap.
    layers = [rng.standard_normal((256, 16)), rng.standard_normal((256, 256)), rng.standard_normal((1, 256))]
    net = pc.Layers(layers, pc.Activation("softplus"), x, (1.0, 1 / 16, 1 / 16), (True, True, False))
    for radius in (0.1, 1.0, 10.0):
        bounds = net.bounds(radius)
        print(
            f"radius {radius:<5} Hessian <= {bounds.hessian.max():.4f}, tangent remainder <= {bounds.remainder.max():.4f}"
        )


if __name__ == "__main__":
    main()
