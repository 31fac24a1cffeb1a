"""A contact sheet of preference pairs: image, instruction, responses, doubtful words marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignment.rows import PairRow
from bench.data.picture_sheet import QUIET, Panel, Paragraph, picture_sheet


def write_sheet(rows: Sequence[PairRow], total: int, folder: Path, file: Path) -> None:
    """Writes pairs as PNG.

    Args:
        rows: The pairs that are shown.
        total: How many there are.
        folder: Where their images lie. An image that cannot be read leaves its place grey.
        file: The sheet.
    """
    panels = []
    for row in rows:
        paragraphs = [Paragraph(row["instruction"], QUIET)]
        responses = (
            ("chosen", row["chosen"], row["chosen_reward"], row.get("chosen_doubtful", [])),
            ("rejected", row["rejected"], row["rejected_reward"], row.get("rejected_doubtful", [])),
        )
        for side, response, reward, doubtful in responses:
            text = f"{side} ({reward:+.2f}): {response}"
            paragraphs.append(Paragraph(text, marked=doubtful, apart=True))
        panels.append(Panel(folder / row["image"], paragraphs))
    subtitle = f"{len(rows):,} of {total:,}; what the reward doubts is underlined"
    models = {row["chosen_model"] for row in rows} | {row["rejected_model"] for row in rows}
    title = f"Preference pairs of {', '.join(sorted(models))}"
    picture_sheet(title, subtitle, panels).save(file)
