"""One model on many workers: actors of a Ray cluster, each holding the model.

The driver plans the batches, as a single process would, and hands them over in their order, so that
answers and their file are those of a single process. What a lost worker was asked goes to the
others.
"""

from __future__ import annotations

import re
import socket
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError, ModelError, one_line
from bench.models.batching import plan
from bench.models.hf import HFModel
from bench.models.protocol import ByProtocol
from bench.types import Batch, Request

AHEAD = 2  # batches that a worker has at hand, the one it computes included
REACH = 10.0  # seconds to reach a cluster
TRIES = 3  # how many workers a batch may cost before it is given up
INSTALL = "pip install 'synth-align[ray]'"


class Crew(NamedTuple):
    """The workers, their common description, and how many prompts a batch may have."""

    workers: list[Any]
    description: dict[str, Any]
    max_prompts: int


class RayModel(ByProtocol):
    """An `hf` model on Ray actors.

    Args:
        spec: HFModel's.
        options: HFModel's; workers (how many), ray (HOST:PORT, auto, or this machine).

    Raises:
        ModelError: Ray or the cluster is missing, too small, or its workers would answer
            differently.
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.spec, self.options = spec, dict(options)
        self.wanted, self.address = options.get("workers"), options.get("ray")
        local = HFModel(spec, self.options | {"device": "cpu"})  # no weights are read for it
        self.protocol, self.adapter = local.protocol, local.adapter

    def describe(self) -> dict[str, Any]:
        """What every worker says of itself; how many they are changes no answer."""
        return self._crew.description

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Batches in the order of a single process. Raises ModelError if no worker is left."""
        import ray

        workers = self._crew.workers
        batches: list[list[Request]] = []
        for groups in plan(requests, self._crew.max_prompts):
            batch: list[Request] = []
            for group in groups:
                batch += group
            if any(request.key not in done for request in batch):
                batches.append(batch)
        todo = deque(range(len(batches)))
        free = deque(workers * AHEAD)  # a worker stands there once for each batch it may hold
        running: dict[Any, tuple[int, Any]] = {}  # Ray's reference → batch, worker
        ready: dict[int, Batch] = {}  # answered before a batch in front of them was
        losses = [0] * len(batches)
        handed = 0
        while handed < len(batches):
            while free and todo:
                index, worker = todo.popleft(), free.popleft()
                reference = worker.answer.remote(batches[index], _contents(batches[index]))
                running[reference] = index, worker
            if not running:
                raise _lost("The last of its workers is gone.")
            try:
                finished = ray.wait(list(running))[0][0]
                index, worker = running.pop(finished)
                answered = ray.get(finished)
            except ray.exceptions.RayActorError:
                losses[index] += 1
                todo.appendleft(index)
                free = deque(other for other in free if other is not worker)
                if worker in workers:
                    workers.remove(worker)
                    warnings.warn(
                        f"a worker was lost; what it was asked goes to the {len(workers)} left",
                        stacklevel=2,
                    )
                if losses[index] == TRIES:
                    # Most likely these very images kill whoever is asked about them.
                    image = batches[index][0].image
                    raise _lost(
                        f"{TRIES} workers were lost over the images from {image} on."
                    ) from None
                continue
            except ray.exceptions.RayError as error:
                first_line = str(error).strip().splitlines()[0]
                raise _lost(f"{type(error).__name__}: {first_line}") from error
            if isinstance(answered, tuple):
                raise ModelError(*answered)
            free.append(worker)
            ready[index] = answered
            while handed in ready:
                yield ready.pop(handed)
                handed += 1

    @cached_property
    def _crew(self) -> Crew:
        """The workers, started and found to be alike."""
        try:
            import ray
        except ImportError as error:
            raise ModelError("--workers needs Ray.", "It is not installed.", INSTALL) from error
        _connect(ray, self.address, self.wanted)
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        device = str(self.options.get("device") or "auto")
        on_gpus = device.startswith("cuda") or (device == "auto" and gpus >= 1)
        unit = "GPU" if on_gpus else "CPU"
        count = self.wanted or (gpus if on_gpus else len(ray.nodes()))
        if not 0 < count <= resources.get(unit, 0):
            raise ModelError(
                f"The cluster has no room for {count} workers.",
                f"Each takes one {unit}, and it has {int(resources.get(unit, 0))}.",
                "Give fewer --workers, or add machines.",
            )
        options = self.options | {"workers": None, "ray": None}
        if on_gpus:
            options["device"] = "cuda"
        actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=int(on_gpus), scheduling_strategy="SPREAD", max_restarts=0
        )
        workers, pending = [], []
        for _ in range(count):
            worker = actor.remote(self.spec, options)
            workers.append(worker)
            pending.append(worker.about.remote())
        try:
            reports = ray.get(pending)
        except ray.exceptions.RayError as error:
            last_line = str(error).strip().splitlines()[-1][:300]
            raise _lost(f"A worker cannot start: {last_line}") from error
        for report in reports:
            if isinstance(report[0], str):
                raise ModelError(*report)
            # Another GPU or another version of a package can change an answer.
            if report != reports[0]:
                raise ModelError(
                    "The workers would not answer alike.",
                    f"One says {_differing(reports[0][0], report[0])}.",
                    "Use machines with the same weights, GPUs and packages.",
                )
        return Crew(workers, *reports[0])


class _Worker:
    """In an actor's process: one model.

    Errors go back as (fact, reason, remedy), because Ray cannot carry our exceptions.
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.fault: tuple[str, str, str] | None = None
        try:
            self.model = HFModel(spec, options)
        except BenchError as error:
            self.fault = (error.fact, error.reason, error.remedy)

    def about(self) -> tuple[Any, ...]:
        return self.fault or (self.model.describe(), self.model.max_prompts)

    def answer(
        self, requests: Sequence[Request], contents: Mapping[str, bytes]
    ) -> Batch | tuple[str, str, str]:
        """One batch.

        The images' contents travel with it, so that machines need not share a disk.
        """
        with tempfile.TemporaryDirectory() as folder:
            local = {}
            for number, (path, content) in enumerate(contents.items()):
                local[path] = Path(folder, f"{number}-{Path(path).name}")
                local[path].write_bytes(content)
            moved = [replace(request, path=local[str(request.path)]) for request in requests]
            answers = {}
            try:
                for batch in self.model.answer(moved, frozenset()):
                    for request, answer in batch:
                        answers[request.key] = answer
            except BenchError as error:
                return error.fact, error.reason, error.remedy
        return [(request, answers[request.key]) for request in requests]


def _contents(requests: Sequence[Request]) -> dict[str, bytes]:
    """The files of the requests' images, by path."""
    contents = {}
    for request in requests:
        if request.path is not None and str(request.path) not in contents:
            contents[str(request.path)] = request.path.read_bytes()
    return contents


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


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    differences = []
    for key in one:
        if one[key] != other.get(key):
            differences.append(f"{key} {other.get(key)!r}, another {one[key]!r}")
    return "; ".join(differences)


def _lost(reason: str) -> ModelError:
    return ModelError(
        "The Ray workers no longer answer.",
        reason,
        "Start the same command again; what was answered is kept.",
    )
