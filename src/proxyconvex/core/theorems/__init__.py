"""The theorems, each one executable object; ``THEOREMS`` lists them all."""

from .base import Accepted, Rejected, Theorem
from .normalised import NormalisedErrors
from .population import AzumaPopulation, FreedmanPopulation
from .proxy_convex import AverageGrowth, BestGrowth, SampleGrowth, ScheduleGrowth
from .proxy_pl import LinearProxyPL, NoisyProxyPL, PlainProxyPL, SharpProxyPL
from .smooth_convex import LocalGrowth, LocalSmoothConvex, SmoothConvex

T1 = PlainProxyPL()
T1_SHARP = SharpProxyPL()
T1_LAST = LinearProxyPL()
T2 = NoisyProxyPL()
T3 = AverageGrowth()
T3_VIRTUAL = BestGrowth()
T3_STEPS = ScheduleGrowth()
T3_SAMPLES = SampleGrowth()
T4 = SmoothConvex()
T3T5 = LocalGrowth()
T4T5 = LocalSmoothConvex()
T6 = FreedmanPopulation()
T6_AZUMA = AzumaPopulation()
T8 = NormalisedErrors()

THEOREMS: tuple[Theorem, ...] = (
    T1, T1_SHARP, T1_LAST, T2, T3, T3_VIRTUAL, T3_STEPS, T3_SAMPLES, T4, T3T5, T4T5, T6, T6_AZUMA, T8,
)  # fmt: skip

__all__ = [
    "T1", "T1_LAST", "T1_SHARP", "T2", "T3", "T3T5", "T3_SAMPLES", "T3_STEPS", "T3_VIRTUAL", "T4", "T4T5", "T6",
    "T6_AZUMA", "T8", "THEOREMS", "Accepted", "Rejected", "Theorem",
]  # fmt: skip
