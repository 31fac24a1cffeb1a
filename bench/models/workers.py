"""One model on many workers: actors of a Ray cluster, each holding the model, answer batches of whole images.

The driver alone plans the batches, as a single process would, and hands them over in their order, so that answers and
their file are those of a single process. What a lost worker was asked goes to the others.
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
from typing import Any

from bench.errors import BenchError, ModelError
from bench.models.hf import HFModel, plan
from bench.models.protocol import ByProtocol
from bench.types import Batch, Request

AHEAD = 2  # batches that a worker has at hand, the one it computes included
REACH = 10.0  # seconds to reach a cluster
TRIES = 3  # so many workers that a batch may cost before it is given up
INSTALL = "pip install 'synth-align[ray]'"


class RayModel(ByProtocol):
    """An `hf` model on Ray actors. Options: HFModel's; workers (how many), ray (HOST:PORT, auto, or this machine).

    Raises ModelError where Ray or the cluster is missing, too small, or where its workers would answer differently.
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.spec, self.options = spec, dict(options)
        self.wanted, self.address = options.get("workers"), options.get("ray")
        self.protocol = HFModel(spec, self.options | {"device": "cpu"}).protocol  # no weights are read for it

    def describe(self) -> dict[str, Any]:
        """What every worker says of itself; how many they are changes no answer."""
        return self._crew[1]

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Batches in the order of a single process. Raises ModelError where no worker is left."""
        import ray

        workers, _, at_once = self._crew
        batches = [[request for group in batch for request in group] for batch in plan(requests, at_once)]
        work = [batch for batch in batches if any(request.key not in done for request in batch)]
        todo, ready, cost = deque(range(len(work))), {}, [0] * len(work)
        free = deque(worker for _ in range(AHEAD) for worker in workers)
        running: dict[Any, tuple[int, Any]] = {}
        handed = 0
        while handed < len(work):
            while free and todo:
                number, worker = todo.popleft(), free.popleft()
                running[worker.answer.remote(work[number], _contents(work[number]))] = number, worker
            if not running:
                raise _lost("The last of its workers is gone.")
            try:
                (first, *_), _ = ray.wait(list(running))
                number, worker = running.pop(first)
                found = ray.get(first)
            except ray.exceptions.RayActorError:
                cost[number] += 1
                todo.appendleft(number)
                free = deque(other for other in free if other is not worker)
                if worker in workers:
                    workers.remove(worker)
                    warnings.warn(f"a worker was lost; what it was asked goes to the {len(workers)} left", stacklevel=2)
                if cost[number] == TRIES:
                    raise _lost(f"{TRIES} workers were lost over the images from {work[number][0].image} on.") from None
                continue
            except ray.exceptions.RayError as error:
                raise _lost(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
            if isinstance(found, tuple):
                raise ModelError(*found)
            free.append(worker)
            ready[number] = found
            while handed in ready:
                yield ready.pop(handed)
                handed += 1

    @cached_property
    def _crew(self) -> tuple[list[Any], dict[str, Any], int]:
        """The workers, their common description, and how many prompts a batch may have."""
        try:
            import ray
        except ImportError as error:
            raise ModelError("--workers needs Ray.", "It is not installed.", INSTALL) from error
        _connect(ray, self.address, self.wanted)
        there = ray.cluster_resources()
        asked = str(self.options.get("device") or "auto")
        unit = "GPU" if asked.startswith("cuda") or (asked == "auto" and there.get("GPU", 0) >= 1) else "CPU"
        count = self.wanted or int(there.get("GPU", 0) if unit == "GPU" else len(ray.nodes()))
        if not 0 < count <= there.get(unit, 0):
            raise ModelError(
                f"The cluster has no room for {count} workers.",
                f"Each takes one {unit}, and it has {int(there.get(unit, 0))}.",
                "Give fewer --workers, or add machines.",
            )
        options = self.options | ({"device": "cuda"} if unit == "GPU" else {}) | {"workers": None, "ray": None}
        made = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=1 if unit == "GPU" else 0, scheduling_strategy="SPREAD", max_restarts=0
        )
        workers = [made.remote(self.spec, options) for _ in range(count)]
        try:
            told = ray.get([worker.about.remote() for worker in workers])
        except ray.exceptions.RayError as error:
            raise _lost(f"A worker cannot start: {str(error).strip().splitlines()[-1][:300]}") from error
        for found in told:
            if isinstance(found[0], str):
                raise ModelError(*found)
            if found != told[0]:
                raise ModelError(
                    "The workers would not answer alike.",
                    f"One says {_differing(told[0][0], found[0])}.",
                    "Use machines with the same weights, GPUs and packages.",
                )
        return workers, *told[0]


class _Worker:
    """In an actor's process: one model. Errors go back as (fact, reason, remedy), which survive the way."""

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.fault: tuple[str, str, str] | None = None
        try:
            self.model = HFModel(spec, options)
        except BenchError as error:
            self.fault = (error.fact, error.reason, error.remedy)

    def about(self) -> tuple[Any, ...]:
        return self.fault or (self.model.describe(), self.model.at_once)

    def answer(self, requests: Sequence[Request], contents: Mapping[str, bytes]) -> Batch | tuple[str, str, str]:
        """One batch; the images' contents travel with it, so that machines need not share a disk."""
        with tempfile.TemporaryDirectory() as folder:
            local = {path: Path(folder, f"{n}-{Path(path).name}") for n, path in enumerate(contents)}
            for path, file in local.items():
                file.write_bytes(contents[path])
            moved = {request.key: replace(request, path=local[str(request.path)]) for request in requests}
            try:
                answers = {r.key: a for batch in self.model.answer([*moved.values()], frozenset()) for r, a in batch}
            except BenchError as error:
                return error.fact, error.reason, error.remedy
        return [(request, answers[request.key]) for request in requests]


def _contents(requests: Sequence[Request]) -> dict[str, bytes]:
    paths = dict.fromkeys(request.path for request in requests if request.path is not None)
    return {str(path): path.read_bytes() for path in paths}


def _connect(ray: Any, address: str | None, count: int | None) -> None:
    """Joins the cluster at `address`, or starts one on this machine."""
    if ray.is_initialized():
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if found := re.search(r"([^/@]+):(\d+)$", address or ""):
            socket.create_connection((found[1], int(found[2])), timeout=REACH).close()  # Ray itself tries for minutes
        if address is None:
            ray.init(address="local", include_dashboard=False, num_cpus=max(count or 1, 1), **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ModelError(
            f"There is no Ray cluster at {address or 'this machine'}.",
            " ".join(str(error).split())[:300],
            "Start one with `ray start --head`, or check HOST:PORT and, if it wants a token, RAY_AUTH_MODE=token.",
        ) from error


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return "; ".join(f"{key} {other.get(key)!r}, another {one[key]!r}" for key in one if one[key] != other.get(key))


def _lost(reason: str) -> ModelError:
    return ModelError(
        "The Ray workers no longer answer.", reason, "Start the same command again; what was answered is kept."
    )
