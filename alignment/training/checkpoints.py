"""What a training goes on from after a kill: the trainer's checkpoints, as they were written.

transformers writes `trainer_state.json` last and reads pickles with `weights_only=True`, so nothing
in a checkpoint runs. A file that changed since would be read all the same, or end in a traceback.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from alignment.settings import RecipeError
from bench.errors import StoreError, one_line
from bench.files import check_ours, digests_below, parse_json, write_json
from bench.terminal import note

STATE = "trainer_state.json"
DIGESTS = "digests.json"  # of a checkpoint's files


class LogRow(TypedDict, total=False):
    """What is read of a row of the trainer's log."""

    loss: float
    step: int


class TrainerState(TypedDict):
    """What is read of trainer_state.json."""

    global_step: int
    log_history: list[LogRow]


def seal_checkpoints(trainer: Any, out: Path) -> None:
    """Lets the trainer leave the digests of each checkpoint's files beside them."""
    from transformers import TrainerCallback

    class Seal(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.accelerator.wait_for_everyone()  # each process writes a part
            if state.is_world_process_zero:
                checkpoint = out / f"checkpoint-{state.global_step}"
                write_json(checkpoint / DIGESTS, _digests(checkpoint))

    trainer.add_callback(Seal())


def last_checkpoint(trainer: Any, out: Path) -> Path | None:
    """The newest that is whole and as it was written, None if there is none.

    Those that were changed are named and set aside: the trainer keeps the one of the highest step.
    """
    checkpoints = {}
    for state in out.glob(f"checkpoint-*/{STATE}"):
        if state.stat().st_size:
            checkpoints[int(state.parent.name.rpartition("-")[2])] = state.parent
    changed, last = [], None
    for step in sorted(checkpoints, reverse=True):
        if not _was_changed(checkpoints[step]):
            last = checkpoints[step]
            break
        changed.append(checkpoints[step])
    trainer.accelerator.wait_for_everyone()  # each process has looked at them
    if trainer.is_world_process_zero():
        for checkpoint in changed:
            note(f"dpo: {checkpoint} is not as it was written, and is left out")
            _set_aside(checkpoint)
    return last


def _was_changed(checkpoint: Path) -> bool:
    try:
        state = parse_json((checkpoint / STATE).read_text(encoding="utf-8"))
        check_ours(TrainerState, state, checkpoint / STATE)
        # A kill between a checkpoint and its digests leaves one without.
        if not (checkpoint / DIGESTS).is_file():
            return False
        recorded = parse_json((checkpoint / DIGESTS).read_text(encoding="utf-8"))
    except (ValueError, StoreError):
        return True
    return bool(recorded != _digests(checkpoint))


def _digests(checkpoint: Path) -> dict[str, str]:
    files = []
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and file.name != DIGESTS:
            files.append(file)
    return digests_below(checkpoint, files)


@contextmanager
def resuming(trainer: Any, checkpoint: Path | None) -> Iterator[None]:
    """Whatever is raised before the first step is the checkpoint's fault, if there is one.

    Raises RecipeError that names it.
    """
    from transformers import TrainerCallback

    has_begun = False

    class Begin(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal has_begun
            has_begun = True

    trainer.add_callback(Begin())
    try:
        yield
    except Exception as error:  # a pickle that is none raises what it likes
        if checkpoint is None or has_begun:
            raise
        raise RecipeError(
            f"The training cannot go on from {checkpoint}.",
            f"{type(error).__name__}: {one_line(error)[:200]}",
            "Delete that folder: the training then begins anew.",
        ) from error


def remove_checkpoints(out: Path) -> None:
    """They hold optimizer states, several times the size of the adapter."""
    for checkpoint in out.glob("checkpoint-*"):
        # Renamed first: half a checkpoint must not be taken for a whole one.
        _set_aside(checkpoint)
    for removed in out.glob("removed-checkpoint-*"):
        shutil.rmtree(removed)


def _set_aside(checkpoint: Path) -> None:
    aside = checkpoint.with_name(f"removed-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
