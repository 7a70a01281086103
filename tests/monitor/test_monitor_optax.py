"""JAX and Optax: training is what it was, and the numbers are those of an oracle outside the step."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex import InvalidInputError, Status
from proxyconvex.jax import Monitor, WatchConvexity, split_gradients, tangent_loss
from proxyconvex.monitor.optax_adapter import BLOCK, _totals
from proxyconvex.monitor.proxies import proxies

optax = pytest.importorskip("optax")
KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[0], (128, 12))
Y = jnp.argmax(X[:, :4] + 0.3 * X[:, 4:8], axis=1)
W0 = {
    "a": 0.3 * jax.random.normal(KEYS[1], (12, 16)),
    "b": jnp.zeros(16),
    "c": 0.3 * jax.random.normal(KEYS[2], (16, 4)),
}


def outputs(w: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w["a"] + w["b"]) @ w["c"]


GRADIENT = jax.jit(jax.grad(lambda w, x, y: loss(w, x, y)[0]))


def loss(w: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = outputs(w, x)
    return optax.softmax_cross_entropy_with_integer_labels(z, y).mean(), z


def train(
    optimizer: Any,
    monitor: Monitor | None = None,
    *,
    steps: int = 40,
    start: Any = W0,
    at: Any = None,
    first: int = 0,
    path: list | None = None,
) -> tuple[Any, Any]:
    watched = optimizer if monitor is None else monitor.wrap(optimizer)
    w, state = (start, watched.init(start)) if at is None else at

    @jax.jit
    def step(w: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        (f, z), g = jax.value_and_grad(loss, has_aux=True)(w, x, y)
        given: dict[str, Any] = {}
        if monitor is not None:
            given = {"value": f}
            if monitor.values:
                seen = proxies("cross-entropy", jnp, z, y)
                given["monitor_values"] = {k: seen[k] for k in monitor.values}
        updates, state = watched.update(g, state, w, **given)
        return optax.apply_updates(w, updates), state

    for t in range(first, steps):
        rows = np.random.default_rng(t).integers(0, 128, 32)
        if path is not None:
            path.append((w, X[rows], Y[rows]))
        w, state = step(w, state, X[rows], Y[rows])
        if monitor is not None:
            state = monitor.after_step(state)
    return w, state


OPTIMISERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.2), optax.sgd(0.1)),
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(optax.cosine_decay_schedule(1e-2, 40)),
}


@cache
def plain_run(name: str) -> Any:
    return train(OPTIMISERS[name]())[0]


@pytest.mark.parametrize("preset", ["light", "full"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_parameters_are_the_same_bit_for_bit(name: str, preset: str) -> None:
    plain = plain_run(name)
    # Seven, not the preset's fifty: both compiled steps then take turns.
    every = 1 if preset == "full" else 7
    monitor = Monitor(learning_rate=0.1, preset=preset, every=every, values=("slope",))
    watched, state = train(OPTIMISERS[name](), monitor)
    monitor.close(state, watched)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(watched), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert monitor.ledger.steps == 40
    assert monitor.ledger.verdict().status is Status.HOLDS
    assert monitor.ledger.tracks["init"].checks == (40 if preset == "full" else 6)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, float).ravel() for x in jax.tree.leaves(tree)])


def test_every_number_against_numpy_in_float64() -> None:
    v = jax.tree.map(lambda x: x + 0.1, W0)
    monitor = Monitor(
        comparators={"init": "init", "near": v}, learning_rate=0.1, preset="full", values=("slope", "error")
    )
    path: list = []
    w, state = train(optax.sgd(0.1, momentum=0.9), monitor, path=path)
    monitor.close(state, w)
    records = monitor.ledger.log().records
    assert [r["step"] for r in records] == list(range(40))
    ends = [*[p[0] for p in path[1:]], w]
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    slope_of = jax.jit(lambda z, y: proxies("cross-entropy", jnp, z, y)["slope"])
    for r, (at, x, y), after in zip(records, path, ends, strict=True):
        (f, z), g = gradient(at, x, y)
        flat, d, u = _flat(at), _flat(g), _flat(at) - _flat(after)
        assert r["loss"] == pytest.approx(float(f), rel=1e-5)
        assert r["grad_sq"] == pytest.approx(d @ d, rel=1e-4)
        assert r["update_sq"] == pytest.approx(u @ u, rel=1e-4)
        assert r["slope"] == pytest.approx(float(slope_of(z, y)), rel=1e-4)
        for name, point in (("init", W0), ("near", v)):
            far = flat - _flat(point)
            size = np.linalg.norm(far)
            assert r["grad_w_minus_v"][name] == pytest.approx(
                d @ far, rel=1e-3, abs=1e-5 * np.linalg.norm(d) * size
            )
            assert r["dist_sq"][name] == pytest.approx(far @ far, rel=1e-4, abs=1e-12)
            assert r["update_dot"][name] == pytest.approx(
                u @ far, rel=1e-3, abs=1e-5 * np.linalg.norm(u) * size
            )
    verdict = monitor.ledger.verdict("near")
    assert verdict.status is Status.HOLDS
    final = _flat(w) - _flat(v)
    assert monitor.ledger.tracks["near"].last_sq == pytest.approx(final @ final, rel=1e-5)


def test_steps_looked_at_in_light_against_numpy_and_the_others_are_not_claimed() -> None:
    v = jax.tree.map(lambda x: x + 0.1, W0)
    monitor = Monitor(v, learning_rate=1e-2, every=7)
    path: list = []
    w, state = train(optax.adam(1e-2), monitor, path=path)
    monitor.close(state, w)
    points = [_flat(p[0]) for p in path] + [_flat(w)]
    looked = range(0, 40, 7)
    left = sum((points[t] - points[t + 1]) @ (points[t] - _flat(v)) for t in looked)
    track = monitor.ledger.tracks["v"]
    assert (track.checks, track.unmeasured) == (len(looked), 40 - len(looked))
    assert track.dot.value == pytest.approx(left, rel=1e-4)
    assert track.sides()[1] == pytest.approx(left, rel=1e-3)
    verdict = monitor.ledger.verdict("v")
    assert verdict.status is Status.HOLDS
    assert "34 other steps were not compared" in str(verdict.sentence)
    records = {r["step"]: r for r in monitor.ledger.log().records}
    assert [t for t, r in records.items() if "update_sq" in r] == list(looked)
    for t in looked:
        far = points[t] - _flat(v)
        assert records[t]["dist_sq"]["v"] == pytest.approx(far @ far, rel=1e-5)
    said = monitor.ledger.log().header["quantities"]
    assert said["update"] == "every 7 steps"
    assert said["distance"] == "every 7 steps and at the step after each"


@pytest.mark.parametrize(("moved", "status"), [(14, Status.FALSIFIED), (16, Status.HOLDS)])
def test_light_finds_weights_moved_in_a_step_it_looks_at(moved: int, status: Status) -> None:
    monitor = Monitor(jax.tree.map(jnp.zeros_like, W0), learning_rate=0.1, every=7)
    w, state = train(optax.sgd(0.1), monitor, steps=moved + 1)
    w = jax.tree.map(lambda x: 1.01 * x, w)
    w, state = train(optax.sgd(0.1), monitor, at=(w, state), first=moved + 1)
    monitor.close(state, w)
    verdict = monitor.ledger.verdict()
    assert verdict.status is status
    assert ("between step 14 and step 15" in str(verdict.sentence)) == (status is Status.FALSIFIED)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_that_may_not_look_has_no_branch_and_the_numbers_do_not_depend_on_who_decides(
    name: str,
) -> None:
    totals, records, compiled = [], [], []
    for used in (True, False):
        monitor = Monitor(learning_rate=0.1, every=7, buffer=16)
        optimizer = monitor.wrap(OPTIMISERS[name]())

        @jax.jit
        def step(w: Any, state: Any, x: jax.Array, y: jax.Array, optimizer: Any = optimizer) -> Any:
            f, g = jax.value_and_grad(lambda w: loss(w, x, y)[0])(w)
            updates, state = optimizer.update(g, state, w, value=f)
            return optax.apply_updates(w, updates), state

        w, state = W0, optimizer.init(W0)
        branches = set()
        for t in range(40):
            rows = np.random.default_rng(t).integers(0, 128, 32)
            update = jax.make_jaxpr(lambda g, s, w, o=optimizer: o.update(g, s, w, value=0.0))
            if t in (0, 9, 10, 14, 15, 16):
                branches.add((t, "cond[" in str(update(w, state, w))))
            w, state = step(w, state, X[rows], Y[rows])
            after = monitor.after_step(state)
            state = after if used else state
        monitor.close(state, w)
        assert jax.tree.structure(monitor.for_checkpoint(state)) == jax.tree.structure(optimizer.init(W0))
        quiet = {9, 10, 16} if used else set()
        assert branches == {(t, t not in quiet) for t in (0, 9, 10, 14, 15, 16)}
        totals.append(monitor.ledger.totals())
        records.append(monitor.ledger.log().records)
        compiled.append(step._cache_size())
    assert totals[0] == totals[1]
    assert records[0] == records[1]
    assert compiled == [2, 1]
    assert totals[0]["tracks"]["init"]["checks"] == 6


def test_steps_inside_a_scan_decide_by_themselves() -> None:
    monitor = Monitor(learning_rate=0.1, every=5, buffer=32)
    optimizer = monitor.wrap(optax.sgd(0.1))

    @jax.jit
    def chunk(w: Any, state: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            w, state = carry
            f, g = jax.value_and_grad(lambda w: loss(w, X, Y)[0])(w)
            updates, state = optimizer.update(g, state, w, value=f)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(body, (w, state), length=8)[0]

    w, state = W0, optimizer.init(W0)
    for _ in range(8):
        w, state = chunk(w, state)
        state = monitor.after_step(state)
    monitor.close(state, w)
    assert (monitor.ledger.steps, monitor.ledger.first_missed) == (64, -1)
    assert monitor.ledger.tracks["init"].checks == 13
    assert monitor.ledger.verdict().status is Status.HOLDS


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_by_optax_is_not_taken_for_steps(parts: int) -> None:
    monitor = Monitor(learning_rate=0.1, every=5, gradient="accumulated")
    optimizer = optax.MultiSteps(monitor.wrap(optax.sgd(0.1)), parts)
    step = jax.jit(optimizer.update)
    w, state = W0, optimizer.init(W0)
    for t in range(40 * parts):
        rows = np.random.default_rng(t).integers(0, 128, 32)
        g = GRADIENT(w, X[rows], Y[rows])
        updates, state = step(g, state, w)
        w = optax.apply_updates(w, updates)
        state = monitor.after_step(state)
    monitor.close(state, w)
    assert monitor.ledger.steps == 40
    assert monitor.ledger.tracks["init"].checks == 8
    assert monitor.ledger.verdict().status is Status.HOLDS


def test_a_host_that_counted_wrongly_claims_nothing_and_stops_deciding() -> None:
    monitor = Monitor(learning_rate=0.1, every=5, buffer=40)
    optimizer = monitor.wrap(optax.sgd(0.1))
    step = jax.jit(lambda g, s, w: optimizer.update(g, s, w))
    w, state = W0, optimizer.init(W0)
    for t in range(60):
        for _ in range(2 if t == 7 else 1):  # one step that the monitor is not told of
            updates, state = step(GRADIENT(w, X, Y), state, w)
            w = optax.apply_updates(w, updates)
        state = monitor.after_step(state)
    monitor.close(state, w)
    track = monitor.ledger.tracks["init"]
    assert (monitor.ledger.steps, monitor.ledger.first_nonfinite) == (61, -1)
    assert 2 <= track.checks < 13
    assert monitor.ledger.verdict().status is Status.HOLDS
    assert state.pace is None


def test_schedules_and_injected_step_sizes_are_read() -> None:
    schedule = optax.cosine_decay_schedule(0.1, 40)
    by_schedule = Monitor(learning_rate=schedule, preset="full")
    _, state = train(optax.sgd(schedule), by_schedule)
    by_schedule.close(state)
    injected = Monitor(preset="full")
    _, state = train(optax.inject_hyperparams(optax.sgd)(learning_rate=schedule), injected)
    injected.close(state)
    a, b = ([r["eta"] for r in m.ledger.log().records] for m in (by_schedule, injected))
    assert a == pytest.approx([float(schedule(t)) for t in range(40)], rel=1e-4)
    assert b == pytest.approx(a, rel=1e-4)


def test_resume_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    def fresh(where: str) -> Monitor:
        return Monitor(log_dir=tmp_path / where, learning_rate=0.1, preset="full")

    whole = fresh("whole")
    w, state = train(optax.sgd(0.1), whole)
    whole.close(state, w)
    first = fresh("parts")
    at = train(optax.sgd(0.1), first, steps=17)
    saved = json.loads(json.dumps(first.state_dict(at[1])))
    first.ledger.writer.close()
    second = fresh("parts")
    second.load_state_dict(saved)
    w, state = train(optax.sgd(0.1), second, at=at, first=17)
    second.close(state, w)
    assert second.ledger.totals() == whole.ledger.totals()
    assert second.ledger.log().records == whole.ledger.log().records


def test_the_comparators_are_with_the_monitor_while_no_step_looks() -> None:
    v = jax.tree.map(lambda x: x + 0.1, W0)
    whole = Monitor(v, learning_rate=0.1, every=7)
    w, state = train(optax.adam(1e-2), whole)
    whole.close(state, w)
    first = Monitor(v, learning_rate=0.1, every=7)
    at = train(optax.adam(1e-2), first, steps=17)
    arrays = len(jax.tree.leaves(W0))
    # Step 17 does not look: two arrays more than Adam's own, the count and the rows.
    assert len(jax.tree.leaves(at[1])) == 2 * arrays + 1 + 2
    kept = first.for_checkpoint(at[1])
    assert len(jax.tree.leaves(kept)) == 4 * arrays + 1 + 2
    for a, b in zip(jax.tree.leaves(kept.points[0]), jax.tree.leaves(v), strict=True):
        np.testing.assert_array_equal(a, b)
    # Gone on with by another monitor, from the checkpoint and not from what a step was given.
    second = Monitor(v, learning_rate=0.1, every=7)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(kept))))
    w, state = train(optax.adam(1e-2), second, at=(at[0], kept), first=17)
    second.close(state, w)
    assert second.ledger.totals() == whole.ledger.totals()
    with pytest.raises(InvalidInputError, match=r"without its comparators.*monitor\.for_checkpoint"):
        train(optax.adam(1e-2), Monitor(v, learning_rate=0.1, every=7), at=at, first=17)
    with pytest.raises(InvalidInputError, match="without its comparators"):
        first.wrap(optax.adam(1e-2)).update(W0, at[1]._replace(pace=None), W0, value=0.0)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 10**6 + 7])
@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
def test_sums_in_blocks_against_float64(size: int, kind: Any) -> None:
    a, b = (jax.random.normal(k, (size,)).astype(kind).astype(jnp.float32) for k in KEYS[:2])
    found = jax.jit(_totals)([a * a, a * b + 1])
    wide = [np.asarray(x, float) for x in (a * a, a * b + 1)]
    assert [float(x) for x in found] == pytest.approx([x.sum() for x in wide], rel=1e-6)


def test_a_full_buffer_flushes_itself_and_an_overrun_is_said() -> None:
    monitor = Monitor(learning_rate=0.1, preset="full", buffer=8)
    w, state = train(optax.sgd(0.1), monitor)
    monitor.close(state, w)
    assert monitor.ledger.steps == 40
    assert monitor.ledger.first_missed == -1
    late = Monitor(learning_rate=0.1, preset="full", buffer=8)
    late.after_step = lambda state: state
    w, state = train(optax.sgd(0.1), late)
    late.flush(state)
    assert late.ledger.steps == 8
    assert [r["step"] for r in late.ledger.log().records][0] == 32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights(dtype: str) -> None:
    start = jax.tree.map(lambda x: x.astype(dtype), W0)
    monitor = Monitor(learning_rate=0.1, preset="full")
    plain, _ = train(optax.sgd(0.1), start=start)
    w, state = train(optax.sgd(0.1), monitor, start=start)
    monitor.close(state, w)
    np.testing.assert_array_equal(_flat(w), _flat(plain))
    assert all(math.isfinite(r["grad_sq"]) for r in monitor.ledger.log().records)
    far = _flat(w) - _flat(start)
    assert monitor.ledger.tracks["init"].last_sq == pytest.approx(far @ far, rel=1e-5)
    assert monitor.ledger.verdict().status is Status.HOLDS


def test_tangent_loss_is_the_first_order_model() -> None:
    v = jax.tree.map(lambda x: x * 0.5, W0)
    at, lin = tangent_loss(
        lambda w: outputs(w, X), lambda z: optax.softmax_cross_entropy_with_integer_labels(z, Y).mean(), W0, v
    )
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, float)), (W0, v))
        x = jnp.asarray(np.asarray(X, float))
        eps = 1e-6
        moved = jax.tree.map(lambda a, b: a + eps * (b - a), *wide)
        slope = (outputs(moved, x) - outputs(wide[0], x)) / eps
        z = np.asarray(outputs(wide[0], x) + slope)
    expected = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(128), np.asarray(Y)])
    assert float(lin) == pytest.approx(expected, rel=1e-4)
    assert float(at) == pytest.approx(float(loss(W0, X, Y)[0]), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_u1_is_proxy_convexity_for_a_model_that_is_not_convex(seed: int) -> None:
    keys = jax.random.split(jax.random.key(seed), 6)
    w, v = (
        {n: 2 * jax.random.normal(keys[3 * k + j], p.shape) for j, (n, p) in enumerate(W0.items())}
        for k in range(2)
    )
    f, h = tangent_loss(
        lambda u: outputs(u, X), lambda z: optax.softmax_cross_entropy_with_integer_labels(z, Y).mean(), w, v
    )
    g = jax.grad(lambda u: loss(u, X, Y)[0])(w)
    inner = _flat(g) @ (_flat(w) - _flat(v))
    assert inner - float(f) + float(h) >= -1e-4 * abs(inner)


def test_tangent_loss_and_split_gradients_reach_the_summary(tmp_path) -> None:
    monitor = Monitor(log_dir=tmp_path, learning_rate=0.1, preset="full", loss="cross-entropy", watches=[WatchConvexity("own", "loss", "slope")], values=("slope",))  # fmt: skip
    optimizer = monitor.wrap(optax.sgd(0.1))
    w, state = W0, optimizer.init(W0)
    gradient = jax.grad(lambda w, x, y: loss(w, x, y)[0])

    @jax.jit
    def step(w: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        entropy = lambda z: optax.softmax_cross_entropy_with_integer_labels(z, y).mean()  # noqa: E731
        f, h = tangent_loss(lambda u: outputs(u, x), entropy, w, W0)
        parts = [gradient(w, x[r], y[r]) for r in (slice(16), slice(16, 32))]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
        updates, state = optimizer.update(mean, state, w, value=f, monitor_values={"slope": 0.0})
        return optax.apply_updates(w, updates), state, h, split_gradients(parts, 16)

    for t in range(30):
        rows = np.random.default_rng(t).integers(0, 128, 32)
        w, state, h, split = step(w, state, X[rows], Y[rows])
        monitor.record(t, tangent_loss={"init": float(h)}, **{k: float(x) for k, x in split.items()})
    monitor.close(state, w)
    s = monitor.summary()
    assert {f.condition for f in s.findings} >= {"tangent proxy (U1)", "PL"}
    u1 = next(f for f in s.findings if f.condition == "tangent proxy (U1)")
    assert u1.status is Status.HOLDS
    assert any(p.theorem == "T3-samples" for p in s.promises)
    assert "tangent loss" in monitor.report(tmp_path / "r.html").read_text()


def test_what_is_refused() -> None:
    monitor = Monitor(learning_rate=0.1)
    optimizer = monitor.wrap(optax.sgd(0.1))
    state = optimizer.init(W0)
    with pytest.raises(InvalidInputError, match="value=loss"):
        optimizer.update(W0, state)
    with pytest.raises(InvalidInputError, match=r"monitor.wrap\(optimizer\)"):
        monitor.flush(optax.sgd(0.1).init(W0))
    with pytest.raises(InvalidInputError, match="flush"):
        _ = Monitor().ledger
    with pytest.raises(InvalidInputError, match="pytree like the parameters"):
        Monitor({"a": jnp.ones(2)}).wrap(optax.sgd(0.1)).init(W0)
    with pytest.raises(InvalidInputError, match="'init'"):
        Monitor("best")
    with pytest.raises(InvalidInputError, match="exactly the names"):
        Monitor(values=("slope",)).wrap(optax.sgd(0.1)).update(W0, state, W0)
    with pytest.raises(InvalidInputError, match="every=k"):
        Monitor(preset="standard")
    with pytest.raises(InvalidInputError, match="at least two"):
        split_gradients([W0])
