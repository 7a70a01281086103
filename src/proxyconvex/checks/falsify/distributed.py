"""The rounds of a search on a Dask cluster: every round has its own randomness, so they can run anywhere in any order.

The answer is that of the lowest round that found something, which does not depend on how many workers there are.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

from ...core.errors import InvalidInputError
from ..deadline import Deadline
from .posed import problem_of
from .search import Found, Search

# Not the number of workers: the answer must not depend on it.
_TASKS = 8


def search_elsewhere(search: Search, condition: Any, like: Any, scheduler: Any, jobs: int) -> Found | None:
    """Round 0 here, the other rounds as tasks on a Dask cluster; the counts are added to ``search``.

    Args:
        search: a fresh search with its budget.
        condition: what is searched; cloudpickle carries it to the workers.
        like: shape of the parameters.
        scheduler: a `distributed.Client`, the address of a scheduler, or None for ``jobs`` local processes.
        jobs: number of local processes.

    Raises:
        InvalidInputError: if Dask is not installed or the condition cannot be sent.
    """
    found = search.run(0, 1)  # structured points and the first round: most false claims end here
    if found or search.exhausted:
        return found
    used = max(search.evaluations, 1)
    per_task = max(1, search.budget // _TASKS)
    tasks = max(1, min(_TASKS, (search.budget - used) // per_task))
    left = max(0.1, search.deadline.left)
    payload = _packed(condition, like)
    with _client(scheduler, jobs) as client:
        futures = [
            client.submit(_task, payload, search.seed, 1 + 50 * k, per_task, left, pure=False)
            for k in range(tasks)
        ]
        try:
            for future in futures:  # in order: the answer does not depend on which worker is first
                part = future.result()
                search.evaluations += part["evaluations"]
                for origin, n in part["tried"].items():
                    search.tried[origin] = search.tried.get(origin, 0) + n
                if part["worst"] < search.worst:
                    search.worst, search.worst_point = part["worst"], part["worst_point"]
                search.unconfirmed = search.unconfirmed or part["unconfirmed"]
                if search.progress:
                    search.progress("rounds on the cluster", search.evaluations)
                if part["found"] is not None:
                    return part["found"]
        finally:
            client.cancel(futures)
    return None


def _packed(condition: Any, like: Any) -> bytes:
    import cloudpickle

    module = getattr(condition, "__module__", None)
    for name in [n for n in sys.modules if n.startswith("_proxyconvex_user_")]:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        return cloudpickle.dumps((condition, like))
    except Exception as error:
        raise InvalidInputError(
            "condition", module, "a condition that can be sent to other processes",
            f"Packing it raised {type(error).__name__}: {error}.",
        ) from error  # fmt: skip


@functools.lru_cache(maxsize=2)
def _problem(payload: bytes) -> Any:
    """The search problem of a packed condition; compiled once per worker, not once per task."""
    import cloudpickle

    return problem_of(*cloudpickle.loads(payload))


def _task(payload: bytes, seed: int, first_round: int, budget: int, seconds: float) -> dict[str, Any]:
    """Some rounds of a search, on a worker."""
    search = Search(_problem(payload), seed, budget, Deadline.after(seconds))
    found = search.run(first_round)
    return {
        "found": found,
        "evaluations": search.evaluations,
        "tried": search.tried,
        "worst": search.worst,
        "worst_point": search.worst_point,
        "unconfirmed": search.unconfirmed,
    }


@contextlib.contextmanager
def _client(scheduler: Any, jobs: int) -> Iterator[Any]:
    """A Dask client: the given one, one for an address, or one on local processes that ends with the search."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InvalidInputError(
            "scheduler" if scheduler is not None else "jobs", scheduler or jobs, "Dask",
            'Install it: pip install "proxyconvex[dask]".',
        ) from None  # fmt: skip
    if isinstance(scheduler, Client):
        yield scheduler
        return
    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
