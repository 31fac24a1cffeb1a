"""`bench push`: runs as a data set of the hub, for others to look at and to compute with.

| path | |
|---|---|
| README.md | tables of the figures; names the parts for `load_dataset(REPO, NAME)` |
| samples/NAME.parquet | a row for each sample, as `bench export --format parquet` |
| runs/NAME/ | the run's files, for `bench report`, `compare` and `check` |
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, one_line
from bench.escaping import markdown_text
from bench.files import indented
from bench.runs.run import Run
from bench.runs.seal import contents_of, seal
from bench.runs.store import RECORD
from reports.export import samples_frame
from reports.page_data import RunSamples
from reports.results import benchmark_tables, best_runs
from reports.tables import markdown

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

TAG = "synth-align-runs"
FOLDERS = re.compile(r"(?<![\w/.:])/(?:[^/\"']+/)+")  # of an absolute path, up to its name


class PushError(BenchError):
    """Runs that cannot be pushed."""


def push(asked: Sequence[tuple[str, RunSamples]], repository: str, public: bool) -> str:
    """Puts runs into a data set of the hub and returns its address.

    A data set that the command made before is replaced; another one is left alone.

    Args:
        asked: Finished runs and what they asked, each with its name in the data set.
        repository: OWNER/NAME.
        public: Whether a new data set can be seen by all.

    Raises:
        PushError: The name is that of other data, or the hub refuses.
    """
    from huggingface_hub import CommitOperationDelete, HfApi

    api = HfApi()
    # All is made before the hub is asked for anything.
    additions = _additions(asked)
    try:
        address = api.create_repo(
            repository, repo_type="dataset", private=not public, exist_ok=True
        )
        info = api.dataset_info(repository)
        is_new = not any(
            file.rfilename not in (".gitattributes", "README.md") for file in info.siblings or ()
        )
        if not is_new and TAG not in (info.tags or ()):
            raise PushError(
                f"{repository} holds other data.",
                f"Its card has no tag {TAG}.",
                "Name a data set that is not there yet, or one that bench push made.",
            )
        named = {addition.path_in_repo for addition in additions}
        gone = []
        for file in info.siblings or ():
            if file.rfilename.startswith(("runs/", "samples/")) and file.rfilename not in named:
                gone.append(CommitOperationDelete(file.rfilename))
        names = ", ".join(name for name, _ in asked)
        api.create_commit(
            repository,
            [*additions, *gone],
            commit_message=f"Runs: {names}"[:72],
            repo_type="dataset",
        )
    except PushError:
        raise
    except Exception as error:  # the client raises dozens of types
        raise PushError(
            f"The runs could not be pushed to {repository}.",
            f"{type(error).__name__}: {one_line(error)}",
            "Check the name, the network, HF_ENDPOINT and HF_TOKEN (it must be able to write), and "
            "start again.",
        ) from error
    return str(address)


def _additions(asked: Sequence[tuple[str, RunSamples]]) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    files = {"README.md": _card(asked).encode()}
    for name, item in asked:
        samples = io.BytesIO()
        samples_frame(item).to_parquet(samples, index=False)
        files[f"samples/{name}.parquet"] = samples.getvalue()
        contents = contents_of(item.run.folder)
        contents[RECORD] = f"{json.dumps(_without_folders(item.run.record), indent=2)}\n".encode()
        metrics = indented(seal(contents, item.run.store.metric_rows()))
        for file, content in {**contents, "metrics.json": metrics.encode()}.items():
            files[f"runs/{name}/{file}"] = content
    additions = []
    for path, content in files.items():
        additions.append(CommitOperationAdd(path_in_repo=path, path_or_fileobj=content))
    return additions


def _card(asked: Sequence[tuple[str, RunSamples]]) -> str:
    from huggingface_hub import DatasetCardData

    runs: list[Run] = [item.run for _, item in asked]
    configs = []
    for name, _ in asked:
        files = [{"split": "test", "path": f"samples/{name}.parquet"}]
        configs.append({"config_name": name.replace("/", "-"), "data_files": files})
    metadata = DatasetCardData(
        tags=[TAG, "hallucination"],
        task_categories=["image-text-to-text"],
        configs=configs,
    )
    models = ", ".join(dict.fromkeys(markdown_text(run.label) for run in runs))
    tables = "\n".join(map(markdown, benchmark_tables(runs, best_runs(runs))))
    return f"""---
{metadata.to_yaml()}
---

# Runs of {models}

Answers, scores and figures of vision-language models on hallucination benchmarks, by synth-align.
`samples/` has a row for each question; `runs/` has the runs' own files: `bench report`,
`bench compare` and `bench check` read them once they are downloaded.

{tables}"""


def _without_folders(value: Any) -> Any:
    """A record in which each absolute path is its last part: where a home lies tells who it is."""
    if isinstance(value, str):
        return FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return value
