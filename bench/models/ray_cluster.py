"""Workers on a Ray cluster: actors that hold something, and tasks that come back in their order.

What a lost worker was given goes to the others.
"""

from __future__ import annotations

import re
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from bench.errors import ModelError, first_line, one_line

AHEAD = 2  # tasks that a worker has at hand, the one it computes included
REACH = 10.0  # seconds to reach a cluster
TRIES = 3  # how many workers a task may cost before it is given up
INSTALL = "pip install 'synth-align[ray]'"
Task = TypeVar("Task")
Fault = tuple[str, str, str]  # fact, reason, remedy: Ray cannot carry our exceptions


def start_workers(
    actor: type,
    arguments: Callable[[bool], Sequence[Any]],
    wanted: int | None,
    address: str | None,
    device: str = "auto",
) -> tuple[list[Any], list[Any]]:
    """Actors on a cluster, and what each says of itself.

    Args:
        actor: A class whose `about` returns a description, or a Fault.
        arguments: From "on GPUs" to what it is made with.
        wanted: How many; None for one a GPU, or one a node.
        address: HOST:PORT, "auto", or None for this machine.
        device: "auto", "cpu", "cuda".

    Raises:
        ModelError: Ray or the cluster is missing or too small, or an actor has a fault.
    """
    try:
        import ray
    except ImportError as error:
        raise ModelError("--workers needs Ray.", "It is not installed.", INSTALL) from error
    _connect(ray, address, wanted)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    on_gpus = device.startswith("cuda") or (device == "auto" and gpus >= 1)
    unit = "GPU" if on_gpus else "CPU"
    count = wanted or (gpus if on_gpus else len(ray.nodes()))
    if not 0 < count <= resources.get(unit, 0):
        raise ModelError(
            f"The cluster has no room for {count} workers.",
            f"Each takes one {unit}, and it has {int(resources.get(unit, 0))}.",
            "Give fewer --workers, or add machines.",
        )
    remote = ray.remote(actor).options(
        num_cpus=1, num_gpus=int(on_gpus), scheduling_strategy="SPREAD", max_restarts=0
    )
    workers, pending = [], []
    for _ in range(count):
        worker = remote.remote(*arguments(on_gpus))
        workers.append(worker)
        pending.append(worker.about.remote())
    try:
        reports = ray.get(pending)
    except ray.exceptions.RayError as error:
        last_line = str(error).strip().rpartition("\n")[2][:300]
        raise _lost(f"A worker cannot start: {last_line}") from error
    for report in reports:
        if is_fault(report):
            raise ModelError(*report)
    return workers, reports


def in_order(
    workers: list[Any],
    tasks: Sequence[Task],
    submit: Callable[[Any, Task], Any],
    name: Callable[[Task], str],
) -> Iterator[Any]:
    """The results of tasks in their order; lost workers are taken out of the list.

    Args:
        workers: Actors.
        tasks: The tasks.
        submit: Gives a task to a worker and returns Ray's reference.
        name: What errors call a task.

    Raises:
        ModelError: A task ends in a Fault, costs too many workers, or none is left.
    """
    import ray

    todo = deque(range(len(tasks)))
    free = deque(workers * AHEAD)  # a worker stands there once for each task it may hold
    running: dict[Any, tuple[int, Any]] = {}  # Ray's reference → task, worker
    ready: dict[int, Any] = {}  # done before a task in front of them was
    losses = [0] * len(tasks)
    handed = 0
    while handed < len(tasks):
        while free and todo:
            index, worker = todo.popleft(), free.popleft()
            running[submit(worker, tasks[index])] = index, worker
        if not running:
            raise _lost("The last of its workers is gone.")
        try:
            finished = ray.wait(list(running))[0][0]
            index, worker = running.pop(finished)
            result = ray.get(finished)
        except ray.exceptions.RayActorError:
            losses[index] += 1
            todo.appendleft(index)
            free = deque(other for other in free if other is not worker)
            if worker in workers:
                workers.remove(worker)
                warnings.warn(
                    f"a worker was lost; what it was given goes to the {len(workers)} left",
                    stacklevel=2,
                )
            if losses[index] == TRIES:
                # Most likely this very task kills whoever is given it.
                raise _lost(f"{TRIES} workers were lost over {name(tasks[index])}.") from None
            continue
        except ray.exceptions.RayError as error:
            raise _lost(f"{type(error).__name__}: {first_line(error)}") from error
        if is_fault(result):
            raise ModelError(*result)
        free.append(worker)
        ready[index] = result
        while handed in ready:
            yield ready.pop(handed)
            handed += 1


def is_fault(result: Any) -> bool:
    """Whether a worker's result is the three parts of an error."""
    is_triple = isinstance(result, tuple) and len(result) == 3
    return is_triple and all(isinstance(part, str) for part in result)


def _connect(ray: Any, address: str | None, count: int | None) -> None:
    """Joins the cluster at `address`, or starts one on this machine."""
    if ray.is_initialized():
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    host_and_port = re.search(r"([^/@]+):(\d+)$", address or "")
    try:
        if host_and_port:
            # Ray itself tries for minutes to reach a cluster that is not there.
            target = host_and_port[1], int(host_and_port[2])
            socket.create_connection(target, timeout=REACH).close()
        if address is None:
            ray.init(address="local", include_dashboard=False, num_cpus=max(count or 1, 1), **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ModelError(
            f"There is no Ray cluster at {address or 'this machine'}.",
            one_line(error),
            "Start one with `ray start --head`, or check HOST:PORT and, if it wants a token, "
            "RAY_AUTH_MODE=token.",
        ) from error


def _lost(reason: str) -> ModelError:
    return ModelError(
        "The Ray workers no longer answer.",
        reason,
        "Start the same command again; what was done is kept.",
    )
