"""One model on many workers: actors of a Ray cluster, each holding the model.

The driver plans the batches, as a single process would, and hands them over in their order, so that
answers and their file are those of a single process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError, ModelError
from bench.models.batching import plan
from bench.models.hf import HFModel
from bench.models.protocol import ByProtocol
from bench.models.ray_cluster import Fault, in_order, start_workers
from bench.types import Batch, Request


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
        self.decoding = local.decoding

    def describe(self) -> dict[str, Any]:
        """What every worker says of itself; how many they are changes no answer."""
        return self._crew.description

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Batches in the order of a single process. Raises ModelError if no worker is left."""
        batches: list[list[Request]] = []
        for groups in plan(requests, self._crew.max_prompts):
            batch: list[Request] = []
            for group in groups:
                batch += group
            if any(request.key not in done for request in batch):
                batches.append(batch)
        yield from in_order(
            self._crew.workers,
            batches,
            lambda worker, batch: worker.answer.remote(batch, _contents(batch)),
            lambda batch: f"the images from {batch[0].image} on",
        )

    @cached_property
    def _crew(self) -> Crew:
        """The workers, started and found to be alike."""

        def arguments(on_gpus: bool) -> tuple[str, dict[str, Any]]:
            options = self.options | {"workers": None, "ray": None}
            return self.spec, options | ({"device": "cuda"} if on_gpus else {})

        device = str(self.options.get("device") or "auto")
        workers, reports = start_workers(_Worker, arguments, self.wanted, self.address, device)
        for report in reports:
            # Another GPU or another version of a package can change an answer.
            if report != reports[0]:
                raise ModelError(
                    "The workers would not answer alike.",
                    f"One says {_differing(reports[0][0], report[0])}.",
                    "Use machines with the same weights, GPUs and packages.",
                )
        return Crew(workers, *reports[0])


class _Worker:
    """In an actor's process: one model."""

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.fault: Fault | None = None
        try:
            self.model = HFModel(spec, options)
        except BenchError as error:
            self.fault = (error.fact, error.reason, error.remedy)

    def about(self) -> tuple[Any, ...]:
        return self.fault or (self.model.describe(), self.model.max_prompts)

    def answer(self, requests: Sequence[Request], contents: Mapping[str, bytes]) -> Batch | Fault:
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


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    differences = []
    for key in one:
        if one[key] != other.get(key):
            differences.append(f"{key} {other.get(key)!r}, another {one[key]!r}")
    return "; ".join(differences)
