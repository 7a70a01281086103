"""Conjectures to refute or certify: ``proxyconvex check examples/my_condition.py:NAME``.

proxyconvex check examples/my_condition.py:monotone --certificate out.json      # holds, with a certificate
proxyconvex check examples/my_condition.py:too_good                             # false, with a small counterexample
proxyconvex check examples/my_condition.py:smooth                               # on parameters: false
proxyconvex check examples/my_condition.py:strong                               # on parameters, unbounded: searched only
proxyconvex check examples/my_condition.py:near --certificate out.json          # on parameters in a ball: holds, with a certificate
proxyconvex check examples/my_condition.py:network --certificate network        # on the weights of a network: its bounds certify it
"""

import jax
import jax.numpy as jnp
import numpy as np

import proxyconvex as pc

# A single neuron with a softplus activation and label noise, for every dimension and every distribution of the data at once:
# a = <w, x>, b = <v, x>. Frei, Cao and Gu (2020) have the constant C = 1/2 times a ratio of slopes; here is a much better one.
monotone = pc.ProxyConvexity.pointwise(
    lambda a, b, y, s, ds, C: (
        (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + C * (s(b) - y) ** 2
    ),
    activation="softplus",
    a=(-3, 3),
    b=(-3, 3),
    y=(0, 3),
    C="0.721",
)

# Too good to be true: the squared loss of a tanh neuron is not star-convex.
too_good = pc.ProxyConvexity.pointwise(
    lambda a, b, y, s, ds: (s(a) - y) * ds(a) * (a - b) - (s(a) - y) ** 2 / 2 + (s(b) - y) ** 2 / 2,
    activation="tanh",
    a=(-3, 3),
    b=(-3, 3),
    y=(-1, 1),
)

# Conditions on parameters: logistic regression on twelve random rows.
_rows = np.random.default_rng(0).normal(size=(12, 4))
_labels = np.where(_rows[:, 0] > 0, 1.0, -1.0)
_largest = float(np.linalg.eigvalsh(_rows.T @ _rows / 12).max())


def loss(w):
    """Mean logistic loss."""
    return jnp.mean(jax.nn.softplus(-_labels * (_rows @ w)))


smooth = pc.Smooth(0.24 * _largest, f=loss, region=pc.Ball(np.zeros(4), 5.0))  # the right factor is 1/4
strong = pc.convex(loss, comparator=np.ones(4))


def small_loss(w):
    """The same on two columns: in few parameters and a bounded region a proof by boxes is within reach."""
    return jnp.mean(jax.nn.softplus(-_labels * (_rows[:, :2] @ w)))


near = pc.convex(small_loss, comparator=np.ones(2), region=pc.Ball(np.ones(2), 1.0))

# A network that the library knows: two layers, 64 neurons, all weights within 0.2 of where they are.
_half = np.random.default_rng(1).normal(size=(32, 4))
_space = pc.WeightSpace(
    pc.TwoLayerNetwork(pc.Activation("softplus", 0.0, 2.0)),
    pc.Ball(np.concatenate([_half, _half]), 0.2),
    _rows,
    _labels,
)
network = pc.Smooth(1.0, f=_space.loss, region=_space.region)
