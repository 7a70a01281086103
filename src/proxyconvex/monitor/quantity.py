"""What a monitor can record: each quantity has a name, a schedule, what it needs, and a formula for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from ..core.errors import InvalidInputError
from .schedule import PRESETS, Never, Schedule, check_schedule

NEEDS = ("gradient", "update", "outputs", "half-batch", "second-pass", "jvp", "probe")


@final
@dataclass(frozen=True)
class Quantity:
    """One thing that is recorded along a run.

    Attributes:
        name: a name of the catalogue.
        schedule: when it is recorded.
        needs: what an adapter must provide: of ``NEEDS``.
        describe: the formula, for people.
    """

    name: str
    schedule: Schedule
    needs: tuple[str, ...] = ()
    describe: str = ""
    keys: tuple[str, ...] = field(default=(), compare=False)

    def due(self, step: int) -> bool:
        """Whether it is recorded at this step."""
        return self.schedule.due(step)


# name: (needs, formula, keys of the log that carry it)
CATALOGUE: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "loss": ((), "loss f(w_t; z_t) on the batch of the step", ("loss",)),
    "step-size": ((), "step size eta_t", ("eta",)),
    "gradient-norm": (("gradient",), "||d_t||^2 of the gradient that the record names", ("grad_sq",)),
    "inner-product": (("gradient",), "<d_t, w_t - v> for each comparator v", ("grad_w_minus_v",)),
    "distance": ((), "||w_t - v||^2 for each comparator v, and ||w_t - w_0||^2", ("dist_sq", "dist0_sq")),
    "update": (
        ("update",),
        "||u_t||^2 and <u_t, w_t - v> of the step taken, u_t = w_t - w_{t+1}",
        ("update_sq", "update_dot"),
    ),
    "proxies": (
        ("outputs",),
        "proxies of outputs and targets on the batch: |loss'|, error, margins, your own",
        (),
    ),
    "tangent-loss": (
        ("jvp",),
        "U1: loss of the tangent model at v, mean loss(N_w(x) + <grad N_w(x), v - w>, y), on the same batch",
        ("tangent_loss",),
    ),
    "half-batch": (
        ("half-batch",),
        "||sum of part gradients||^2 and sum of ||part gradient||^2 over equal, independent parts of the batch",
        ("parts", "parts_total_sq", "parts_sum_sq", "part_size"),
    ),
    "smoothness": (
        ("second-pass",),
        "secant smoothness on the same batch: ||grad f(w_{t+1}; z_t) - grad f(w_t; z_t)|| / ||u_t||, and the least L of the "
        "descent inequality",
        ("secant_smoothness", "descent_smoothness"),
    ),
    "tangent-margin": (
        ("probe",),
        "on a fixed probe set: tangent margin and smallest eigenvalue of the tangent kernel",
        ("tangent_margin", "ntk_eigenvalue"),
    ),
    "record": ((), "a line of the log", ()),
}


def quantities(
    preset: str | Mapping[str, Any] = "light", overrides: Mapping[str, Any] | None = None
) -> dict[str, Quantity]:
    """The quantities of a preset with their schedules.

    Args:
        preset: ``"light"``, ``"standard"``, ``"full"``, or a mapping from quantity to schedule (`Every`, `LogSpaced`, a whole
            number k for every k steps, None for never).
        overrides: schedules that replace those of the preset.

    Returns:
        Every quantity of the catalogue by name; those not recorded have the schedule `Never`.

    Raises:
        InvalidInputError: for an unknown preset or quantity.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise InvalidInputError("preset", preset, ", ".join(map(repr, PRESETS)), "Or pass a mapping.")
        chosen: dict[str, Any] = dict(PRESETS[preset])
    else:
        chosen = {"record": PRESETS["light"]["record"]} | dict(preset)
    chosen |= dict(overrides or {})
    for name in chosen:
        if name not in CATALOGUE:
            raise InvalidInputError("quantity", name, ", ".join(map(repr, CATALOGUE)))
    return {
        name: Quantity(name, check_schedule(name, chosen.get(name, Never())), needs, describe, keys)
        for name, (needs, describe, keys) in CATALOGUE.items()
    }
