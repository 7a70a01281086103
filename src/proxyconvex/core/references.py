"""Bibliography: every formula cites one of these, and reports print exactly those they used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A published source (or this library's own written proof) of a result."""

    key: str
    text: str
    url: str = ""

    def __str__(self) -> str:
        return self.text


FREI_GU_2021 = Reference(
    "FreiGu2021",
    "S. Frei, Q. Gu. Proxy Convexity: A Unified Framework for the Analysis of Neural Networks Trained by "
    "Gradient Descent. NeurIPS 2021.",
    "https://arxiv.org/abs/2106.13792",
)
FREI_CAO_GU_2021 = Reference(
    "FreiCaoGu2021",
    "S. Frei, Y. Cao, Q. Gu. Provable Generalization of SGD-trained Neural Networks of Any Width in the "
    "Presence of Adversarial Label Noise. ICML 2021.",
    "https://arxiv.org/abs/2101.01152",
)
BRUTZKUS_2018 = Reference(
    "Brutzkus2018",
    "A. Brutzkus, A. Globerson, E. Malach, S. Shalev-Shwartz. SGD Learns Over-parameterized Networks that Provably "
    "Generalize on Linearly Separable Data. ICLR 2018.",
    "https://arxiv.org/abs/1710.10174",
)
FREI_CAO_GU_2020 = Reference(
    "FreiCaoGu2020",
    "S. Frei, Y. Cao, Q. Gu. Agnostic Learning of a Single Neuron with Gradient Descent. NeurIPS 2020.",
    "https://arxiv.org/abs/2005.14426",
)
JI_TELGARSKY_2020 = Reference(
    "JiTelgarsky2020",
    "Z. Ji, M. Telgarsky. Polylogarithmic Width Suffices for Gradient Descent to Achieve Arbitrarily Small "
    "Test Error with Shallow ReLU Networks. ICLR 2020.",
    "https://arxiv.org/abs/1909.12292",
)
ABBASZADEHPEIVASTI_2021 = Reference(
    "AbbaszadehpeivastiDeKlerkZamani2021",
    "H. Abbaszadehpeivasti, E. de Klerk, M. Zamani. The Exact Worst-Case Convergence Rate of the Gradient "
    "Method with Fixed Step Lengths for L-smooth Functions. Optimization Letters 2022.",
    "https://arxiv.org/abs/2104.05468",
)
CHIZAT_BACH_2019 = Reference(
    "ChizatOyallonBach2019",
    "L. Chizat, E. Oyallon, F. Bach. On Lazy Training in Differentiable Programming. NeurIPS 2019.",
    "https://arxiv.org/abs/1812.07956",
)
FREEDMAN_1975 = Reference(
    "Freedman1975",
    "D. A. Freedman. On Tail Probabilities for Martingales. Annals of Probability 3(1), 1975.",
)
CAO_GU_2020 = Reference(
    "CaoGu2020",
    "Y. Cao, Q. Gu. Generalization Error Bounds of Gradient Descent for Learning Over-parameterized Deep ReLU Networks. AAAI 2020.",
    "https://arxiv.org/abs/1902.01384",
)
ALLENZHU_LI_LIANG_2019 = Reference(
    "AllenZhuLiLiang2019",
    "Z. Allen-Zhu, Y. Li, Y. Liang. Learning and Generalization in Overparameterized Neural Networks, Going Beyond Two Layers. "
    "NeurIPS 2019.",
    "https://arxiv.org/abs/1811.04918",
)
JACOT_2018 = Reference(
    "JacotGabrielHongler2018",
    "A. Jacot, F. Gabriel, C. Hongler. Neural Tangent Kernel: Convergence and Generalization in Neural Networks. NeurIPS 2018.",
    "https://arxiv.org/abs/1806.07572",
)
CANDES_LI_SOLTANOLKOTABI_2015 = Reference(
    "CandesLiSoltanolkotabi2015",
    "E. J. Candes, X. Li, M. Soltanolkotabi. Phase Retrieval via Wirtinger Flow: Theory and Algorithms. IEEE Transactions on "
    "Information Theory 61(4), 2015.",
    "https://arxiv.org/abs/1407.1065",
)
PROXYCONVEX_NOTES = Reference(
    "proxyconvexNotes",
    "proxyconvex documentation, 'Mathematics': statements and proofs of the results this library adds.",
)
REFERENCES = {
    r.key: r
    for r in (
        FREI_GU_2021,
        FREI_CAO_GU_2021,
        FREI_CAO_GU_2020,
        BRUTZKUS_2018,
        JI_TELGARSKY_2020,
        ABBASZADEHPEIVASTI_2021,
        CHIZAT_BACH_2019,
        FREEDMAN_1975,
        CAO_GU_2020,
        ALLENZHU_LI_LIANG_2019,
        JACOT_2018,
        CANDES_LI_SOLTANOLKOTABI_2015,
        PROXYCONVEX_NOTES,
    )
}
