"""F5: deep ReLU networks of any depth trained by gradient descent (Cao and Gu 2020), as tangent proxies.

``N(w; x) = v' relu(W_L relu(... W_1 x))`` with v fixed (as many +1 as -1) and hidden weights ``W_l ~ N(0, 2 / m_l)``, all of them trained
on the logistic loss (several classes: one such output per class, cross-entropy).

**Proxy PL.** With a unit vector V in the tangent features of *all* hidden layers and ``y_i <grad N(w; x_i), V> >= gamma``:
``||grad f(w)|| >= gamma mean |loss'|`` (U2). Taking V in the *last hidden layer* only is the route of Cao and Gu: the gradient there is
``v phi'(z_L) h_{L-1}'``, a fixed random-feature map of the layer below, whose margin at initialisation carries over; it never exceeds
the margin of all layers, because the maximum is over a subspace.

**What is known before training.** ReLU is not smooth, so nothing uniform on a ball is claimed for it: margins at ``w_t`` are premises
(ASSUMED) before training and measured along the run afterwards (ON_TRACE). With a smooth activation and paired last-layer neurons the
Hessian bound of `proxyconvex_checker.dense` certifies them on a ball, once the output scale is large enough; the planner computes
from which scale on.

**T8** needs less than margins of single rows: along the run ``<grad f, w - v> >= mean p_i (q_i - m_i)`` and
``||grad f|| <= G mean p_i``, which every step records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.references import CAO_GU_2020, CHIZAT_BACH_2019, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .activations import Activation
from .dense import DenseNetwork
from .dense_family import DenseFamily


@dataclass(frozen=True)
class DeepReLU(DenseFamily):
    """Deep network with the initialisation of Cao and Gu."""

    name: ClassVar[str] = "deep-relu"
    title: ClassVar[str] = "Deep ReLU networks of any depth (Cao and Gu 2020)"
    references: ClassVar[tuple[Reference, ...]] = (
        CAO_GU_2020,
        FREI_GU_2021,
        CHIZAT_BACH_2019,
        PROXYCONVEX_NOTES,
    )
    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass")


def network(
    width: int,
    depth: int,
    outputs: int,
    activation: Activation,
    scale: float = 1.0,
    paired: bool = False,
    seed: int = 0,
) -> DenseNetwork:
    """The architecture: ``depth`` hidden layers of equal width, weights ``N(0, 2/m)``, output weights +-1 times ``scale``.

    Args:
        width: neurons per hidden layer, even.
        depth: hidden layers, at least 1.
        outputs: 1, or the number of classes.
        activation: ReLU, or a smooth one.
        scale: output scale.
        paired: opposite pairs in the last hidden layer, so that the outputs start at zero.
        seed: of the weights.
    """
    return DenseNetwork((width,) * depth, outputs, activation, 2.0, "signs", scale, paired, seed)
