"""An activation of your own for a single neuron, with the constants you declare for it.

proxyconvex audit diabetes --family single-neuron --activation examples/my_activation.py:act
proxyconvex plan diabetes --family single-neuron --activation examples/my_activation.py:too_small    # refused, with the point

The promise then begins "If what is declared ... is true": nobody has proved the constants, they are only tried on the range of the data.
"""

import jax.numpy as jnp

import proxyconvex as pc


def half_arctan(t):
    """From 0 to 1, with slope at most 1/pi and |s''| <= 3 sqrt(3) / (8 pi) < 0.207."""
    return 0.5 + jnp.arctan(t) / jnp.pi


act = pc.Link.custom(half_arctan, lipschitz=0.3184, curvature=0.207)

# One percent below 1/pi: refuted at t = 0.
too_small = pc.Link.custom(half_arctan, lipschitz=0.3151, curvature=0.207)

# A kink at 0, so there is no curvature; the leak is the least slope.
leaky = pc.Link.custom(lambda t: jnp.maximum(t, 0.4 * t), lipschitz=1.0, gamma=0.4, label="leaky")
