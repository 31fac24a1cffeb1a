"""What papers and repositories publish: every figure with its source.

Disagreements are kept, implied figures derived. The tables are leaderboards/published/*.yaml:
`source`, and `tables` of `name`, `columns` (benchmark.metric, with a subset if it is not the whole)
and `rows` by model. Percent, ratings, or counts, as published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.errors import BenchError, os_reason
from bench.yaml_text import parse_yaml

FOLDER = Path(__file__).parent / "published"
PAPER = "synth_align"  # whose figures come first
ROUNDING = 0.05  # figures closer than this are the same one, rounded

# Published columns that a task of lmms-eval measures: its benchmark here, and its metric.
BY_LMMS = {
    "scienceqa.accuracy": ("lmms:scienceqa_img", "exact_match"),
    "mme.cognition": ("lmms:mme", "mme_cognition_score"),
    "mme.perception": ("lmms:mme", "mme_perception_score"),
    "vizwiz.accuracy": ("lmms:vizwiz_vqa_val", "exact_match"),
    "mmmu.accuracy": ("lmms:mmmu_val", "mmmu_acc"),
    "seed.accuracy": ("lmms:seedbench", "seed_all"),
    "mmvet.score": ("lmms:mmvet", "gpt_eval_score"),
}


def measured_by(column: str) -> tuple[str, str]:
    """The benchmark and the metric that a published column stands for.

    >>> measured_by("pope.accuracy"), measured_by("mme.cognition")
    (('pope', 'accuracy'), ('lmms:mme', 'mme_cognition_score'))
    """
    benchmark, name = column.split(".")[:2]
    return BY_LMMS.get(column, (benchmark, name))


class PublishedError(BenchError):
    """A table of published figures that cannot be read."""


class Published(NamedTuple):
    """A published value.

    Args:
        model: What the source calls the model.
        column: benchmark.metric, with a subset if it is not the whole.
        value: Percent, a rating or a count.
        source: The document and its table.
        derived: Whether arithmetic gave the value.
    """

    model: str
    column: str
    value: float
    source: str
    derived: bool = False


def read_published(folder: Path = FOLDER) -> list[Published]:
    """All figures, table after table. Raises PublishedError naming the file that is broken."""
    figures: list[Published] = []
    # The paper's own figures come first; where sources disagree, the first value is shown.
    for file in sorted(folder.glob("*.yaml"), key=lambda file: (file.stem != PAPER, file.name)):
        try:
            content = parse_yaml(file.read_text(encoding="utf-8"))
            for table in content["tables"]:
                figures += _figures(table, f"{content['source']}, {table['name']}")
        except OSError as error:
            raise PublishedError(
                f"{file} cannot be read.", f"{os_reason(error)}.", "Check the folder."
            ) from error
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise PublishedError(
                f"{file} is not a table of published figures.",
                f"{type(error).__name__}: {error}.",
                "It needs source and tables of name, columns and rows.",
            ) from error
    return figures


def _figures(table: Mapping[str, Any], source: str) -> Iterator[Published]:
    for model, values in table["rows"].items():
        for column, value in zip(table["columns"], values, strict=True):
            if value is not None:
                yield Published(str(model), column, float(value), source)


def derived(figures: Sequence[Published]) -> list[Published]:
    """Recall, F1 and yes-ratio that POPE's accuracy and precision imply.

    They are derived if the same table gives both and not them. With as many yes as no questions,
    A = (r + 1 - f) / 2 and P = r / (r + f) of recall r and false-positive rate f give
    r = (2A - 1) P / (2P - 1), yes-ratio = r / 2P. Means over subsets make them approximate.
    """
    given: dict[tuple[str, str, str], dict[str, float]] = {}  # model, source, subset → metrics
    for figure in figures:
        benchmark, metric, *subset = figure.column.split(".")
        if benchmark == "pope":
            table = given.setdefault((figure.model, figure.source, ".".join(subset)), {})
            table[metric] = figure.value / 100
    implied = []
    for (model, source, subset_name), table in given.items():
        suffix = f".{subset_name}" if subset_name else ""
        for metric, value in _implied(table).items():
            if metric not in table:
                column = f"pope.{metric}{suffix}"
                implied.append(Published(model, column, 100 * value, source, derived=True))
    return implied


def _implied(table: Mapping[str, float]) -> dict[str, float]:
    # At a precision of one half the equation says nothing about recall.
    accuracy, precision = table.get("accuracy"), table.get("precision")
    if accuracy is None or precision is None or precision <= 0.5:
        return {}
    recall = (2 * accuracy - 1) * precision / (2 * precision - 1)
    if not 0 < recall <= 1:  # the table's own figures do not fit together
        return {}
    return {
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": recall / (2 * precision),
    }


def disputed(figures: Sequence[Published]) -> dict[tuple[str, str], list[Published]]:
    """(model, column) whose published values differ by more than rounding, with all of them."""
    groups: dict[tuple[str, str], list[Published]] = {}
    for figure in figures:
        if not figure.derived:
            groups.setdefault((figure.model, figure.column), []).append(figure)
    apart = {}
    for key, group in groups.items():
        values = [figure.value for figure in group]
        if max(values) - min(values) > 2 * ROUNDING:
            apart[key] = group
    return apart
