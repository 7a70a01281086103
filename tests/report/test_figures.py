"""Charts, axes and number formatting against hand-computed values."""

from __future__ import annotations

import re

import numpy as np
import pytest
import report_fixtures as made
from hypothesis import given
from hypothesis import strategies as st

from proxyconvex.report import series
from proxyconvex.report.charts import gauge, ledger_charts
from proxyconvex.report.figures import Chart, Level, Series, render, samples, thin
from proxyconvex.report.format import number, percent
from proxyconvex.report.scales import choose_scale


@pytest.mark.parametrize(
    ("value", "kwargs", "text"),
    [
        (0.0079821, {}, "0.007982"),
        (0.0079821, {"direction": "up"}, "0.007983"),
        (-0.0079821, {"direction": "up"}, "−0.007982"),
        (-0.0079821, {"direction": "down"}, "−0.007983"),
        (0.1, {"direction": "up"}, "0.1"),
        (1.5e-9, {}, "1.5×10⁻⁹"),
        (1.5e-9, {"plain": True}, "1.5e-09"),
        (1e-12, {"direction": "down"}, "10⁻¹²"),
        (1_000_000, {}, "1\u202f000\u202f000"),
        (400.0, {}, "400"),
        (0, {}, "0"),
        (None, {}, "n/a"),
        (float("nan"), {}, "n/a"),
        (float("-inf"), {}, "−∞"),
        (float("inf"), {"plain": True}, "inf"),
    ],
)
def test_number(value, kwargs, text):
    assert number(value, **kwargs) == text


@pytest.mark.parametrize(
    ("value", "direction", "text"),
    [(0.0079821, "up", "0.799%"), (0.0079821, "down", "0.798%"), (0.0, "up", "0%"), (1.0, "up", "100%"),
     (5.6e-5, "up", "0.0056%"), (0.1, "up", "10%"), (1e-9, "up", "10⁻⁷%")],
)  # fmt: skip
def test_percent(value, direction, text):
    assert percent(value, direction=direction) == text


@given(st.floats(-1e12, 1e12))
def test_rounding_is_on_the_stated_side(x):
    up, down = (float(number(x, 3, d, plain=True)) for d in ("up", "down"))
    assert down <= x <= up


def test_thinning_keeps_both_ends_and_every_extreme():
    x = np.arange(200_000.0)
    y = np.ones_like(x)
    y[123_456], y[7] = -3.0, np.nan
    kept_x, kept_y = thin(x, y, 300)
    assert len(kept_x) < 1000
    assert kept_x[0] == 0 and kept_x[-1] == x[-1]
    assert np.nanmin(kept_y) == -3.0 and np.isnan(kept_y).any()


def test_log_axis_has_a_place_for_zero():
    scale = choose_scale(np.array([0.0, 0.01, 1.0]), "log", 300.0, 20.0)
    zero, low, high = scale.pixels([0.0, 0.01, 1.0])
    assert zero == 300 and low == 280 and high == 20
    assert scale.ticks(7)[0] == (300.0, "0")


def test_log_axis_is_logarithmic():
    a, b, c = choose_scale(np.array([1e-4, 1.0]), "log", 0.0, 400.0).pixels([1e-4, 1e-2, 1.0])
    assert (a, b, c) == pytest.approx((0, 200, 400))


@pytest.mark.parametrize(
    "values", [[], [0.0], [np.nan], [5.0], [-2.0], [0.0, 0.0], [1e-320, 1.0], [1e300, 1e-300]]
)
@pytest.mark.parametrize("kind", ["linear", "log", "auto", "symlog"])
def test_degenerate_axes_still_draw(values, kind):
    scale = choose_scale(np.array(values, dtype=float), kind, 0.0, 100.0)
    pixels = scale.pixels([v for v in values if np.isfinite(v)] or [0.5])
    assert ((pixels >= 0) & (pixels <= 100) | np.isnan(pixels)).all()
    assert all(0 <= p <= 100 for p, _ in scale.ticks(5))


def test_a_tiny_violation_below_a_large_start_is_visible():
    y = np.array([100.0, 10.0, 1.0, -1e-3])
    scale = choose_scale(y, "auto", 170.0, 0.0, signed=True)
    zero, worst = scale.pixels([0.0, -1e-3])
    assert worst - zero > 5


def test_tick_labels_never_collide():
    scale = choose_scale(np.array([-0.3, -1e-4, 1e-4, 0.1]), "symlog", 134.0, 24.0)
    pixels = [p for p, _ in scale.ticks(4)]
    assert "0" in [t for _, t in scale.ticks(4)]
    assert np.diff(np.sort(pixels)).min() >= 11


def chart(y, **changes):
    """A chart of ``y`` against its index."""
    fields = dict(
        key="k", title="t", summary="s", y_label="y", series=(Series("a", np.arange(len(y)), np.array(y)),)
    )
    return Chart(**{**fields, **changes})


def test_curve_passes_through_its_points():
    text = render(chart([0.0, 5.0, 10.0], x_scale="linear", y_scale="linear"))
    first = re.search(r'class="curve run" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', text)
    x0, y0, x1, y1, x2, y2 = map(float, first.groups())
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert y0 > y2


def test_nan_interrupts_the_curve():
    text = render(chart([1.0, 2.0, np.nan, 3.0, 4.0], x_scale="linear", y_scale="linear"))
    assert re.search(r'class="curve run" d="M[^M"]*M[^M"]*"', text)


def test_empty_chart_says_so():
    assert "Nothing was recorded" in render(chart([np.nan, np.nan]))
    assert "Nothing was recorded" in render(chart([]))


def test_level_is_at_its_value():
    picture = render(chart([0.0, 10.0], x_scale="linear", y_scale="linear", levels=(Level("L", 5.0),)))
    y = float(re.search(r'class="curve promise dashed" d="M[\d.]+ ([\d.]+)H', picture).group(1))
    assert y == pytest.approx((24 + 330 - 36) / 2, abs=0.1)


def test_table_shows_the_first_and_the_last_value():
    table = samples(chart(np.linspace(7, 9, 50)))
    assert table[0] == ["step", "a"] and table[1] == ["0", "7"] and table[-1] == ["49", "9"]


def test_gauge_marks_are_in_proportion():
    text = gauge(0.2, 0.1, is_error=True, violated=False)
    mark = float(re.search(r'class="mark" d="M([\d.]+)', text).group(1))
    dot = float(re.search(r'<circle[^>]*cx="([\d.]+)"', text).group(1))
    assert (dot - 16) / (mark - 16) == pytest.approx(0.5, abs=1e-3)
    assert gauge(float("inf"), 0.1, is_error=True, violated=False) == ""


def test_ledger_of_a_real_descent_closes(kept, sgd):
    for audit in (kept, sgd):
        curves = series.ledger_curves(audit.trace)
        assert np.abs(curves.left - curves.right).max() <= 1e-14 * curves.absolute.max()
        assert np.abs(curves.left).max() > 1  # and is not trivially zero


def test_ledger_shows_a_step_that_was_not_taken():
    run = made.descend()
    wrong = run.dist_sq.copy()
    wrong[200:] += 1e-6
    residual = ledger_charts(made.replace(run, dist_sq=wrong))[1].series[0].y
    assert np.nanmax(residual) > 1e-9


def test_average_so_far_of_a_full_batch_run_is_over_every_step():
    run = made.descend(50)
    curve = series.progress(run, "average-loss")
    assert curve[20] == pytest.approx(run.loss[:20].mean(), rel=1e-13)
    sparse = made.replace(
        run,
        **{k: getattr(run, k)[::10] for k in ("step", *made.COLUMNS)},
        sums={k: v[::10] for k, v in run.sums.items()},
    )
    assert series.progress(sparse, "average-loss")[2] == pytest.approx(run.loss[:20].mean(), rel=1e-13)


def test_best_so_far_sees_steps_between_records():
    run = made.descend(50)
    sparse = made.replace(run, **{k: getattr(run, k)[::50] for k in ("step", *made.COLUMNS)})
    assert series.reduced(sparse, "best-iterate-error") == run.error.min()


def test_online_error_is_that_of_the_drawn_rows(sgd):
    trace = sgd.trace
    assert series.reduced(trace, "online-error") == pytest.approx(trace.sum_online_error / trace.steps_done)


def test_least_slack_covers_steps_that_were_not_recorded(kept):
    hidden = made.replace(kept.trace, min_slack=-0.5, min_slack_step=3)
    g = kept.plan.guarantee
    for last in (400, 125):
        slack = series.premise_slack(g.premises[0], g, hidden, last)
        assert (slack.least, slack.where) == (-0.5, 3)


def test_gradient_bound_slack_matches_the_definition(kept):
    trace, g = kept.trace, kept.plan.guarantee
    slack = series.premise_slack(g.premises[1], g, trace, 400)
    assert slack.least == pytest.approx(9.0 - np.max(np.sqrt(trace.grad_sq) / trace.slope), rel=1e-12)


def test_ball_slack_matches_the_definition(kept):
    g = kept.plan.guarantee
    slack = series.premise_slack(g.premises[2], g, kept.trace, 400)
    assert slack.least == pytest.approx(made.START_DISTANCE - np.sqrt(kept.trace.dist_sq.max()), abs=1e-12)
