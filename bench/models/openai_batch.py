"""The Batch API of the OpenAI protocol: requests in a file, replies within a day at half the price.

The id of a batch and the keys of its requests are written down when the server gives it, so that a
start after a kill waits for the batch instead of paying again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from bench import chat
from bench.chat import GARBLED, Chat, NoReply, Reply
from bench.errors import one_line
from bench.files import append_lines, parse_json, read_lines, type_fault
from bench.terminal import note

MOST_REQUESTS = 50_000  # what OpenAI takes in a file
MOST_BYTES = 150_000_000  # OpenAI takes 200 MB
WINDOW = "24h"  # the only one there is
PAUSES = (1, 2, 4, 8, 15, 30)  # seconds between two looks at a batch; then a minute
LAST_PAUSE = 60
UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")
ENDED = ("completed", "failed", "expired", "cancelled")
NEWEST = 20  # batches that are listed
Id = Annotated[str, Field(pattern=r"^[!-~]{1,512}$")]  # it becomes part of an address


class BatchRow(TypedDict):
    """A line of the file: a batch with its keys, or how one has ended."""

    batch: Id
    keys: NotRequired[list[str]]
    ended: NotRequired[str]


class Submitted(NamedTuple):
    """A batch that the server has taken."""

    id: str
    keys: Sequence[str]


class Batches:
    """The batches of one run.

    Args:
        chat: The server.
        file: Where their ids are kept: JSON lines of a batch with its keys, and of a batch that has
            ended and whose replies are recorded.
    """

    def __init__(self, chat: Chat, file: Path) -> None:
        self.chat, self.file = chat, file

    def pending(self) -> list[Submitted]:
        """Batches whose replies are not recorded yet."""
        batches: dict[str, Submitted] = {}
        for row in read_lines(self.file, BatchRow):
            if "ended" in row:
                batches.pop(row["batch"], None)
            else:
                batches[row["batch"]] = Submitted(row["batch"], row.get("keys", []))
        return list(batches.values())

    def submit(self, bodies: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Sends requests, each a key and a body, in as many batches as they need."""
        keys: list[str] = []
        content = bytearray()
        for key, body in bodies:
            row = {"custom_id": key, "method": "POST", "url": self.chat.batch_path, "body": body}
            line = json.dumps(row).encode() + b"\n"
            if keys and (len(keys) >= MOST_REQUESTS or len(content) + len(line) > MOST_BYTES):
                self._send(keys, bytes(content))
                keys, content = [], bytearray()
            keys.append(key)
            content += line
        if keys:
            self._send(keys, bytes(content))

    def replies(self) -> Iterator[dict[str, Reply | NoReply]]:
        """Of each pending batch, as it ends, the replies by key.

        A batch counts as recorded when the next one is asked for.

        Raises:
            BenchError: The server cannot be asked, or refuses a batch.
        """
        waiting = self.pending()
        pauses = list(PAUSES)
        while waiting:
            ended = []
            for submitted in waiting:
                batch = self._asked(_batch, self.chat.client.batches.retrieve, submitted.id)
                if batch.status not in UNDER_WAY:
                    ended.append(submitted)
                    yield self._read(submitted, batch)
                    append_lines(self.file, [{"batch": submitted.id, "ended": batch.status}])
            waiting = [submitted for submitted in waiting if submitted not in ended]
            if waiting:
                sleep(pauses.pop(0) if pauses else LAST_PAUSE)

    def _send(self, keys: Sequence[str], content: bytes) -> None:
        client = self.chat.client
        named = ("requests.jsonl", io.BytesIO(content))
        uploaded = self._asked(_with_id, client.files.create, file=named, purpose="batch")
        try:
            batch = _batch(
                self._answered(
                    client.batches.create,
                    input_file_id=uploaded.id,
                    endpoint=self.chat.batch_path,
                    completion_window=WINDOW,
                )
            )
        except GARBLED:
            # It may be under way: to send it again would pay it again.
            batch = self._asked(partial(_batch_of, uploaded.id), client.batches.list, limit=NEWEST)
        append_lines(self.file, [{"batch": batch.id, "keys": list(keys)}])
        note(
            f"{self.chat.model}: batch {batch.id} of {len(keys):,} requests is under way. It may "
            "take a day; you may stop here, and the same command goes on."
        )

    def _read(self, submitted: Submitted, batch: Any) -> dict[str, Reply | NoReply]:
        """Every key's reply. Raises BenchError if the server has refused the whole batch."""
        if batch.status == "failed":
            append_lines(self.file, [{"batch": submitted.id, "ended": batch.status}])
            reasons = []
            with suppress(*GARBLED):
                for fault in batch.errors.data:
                    reasons.append(one_line(fault.message, 160))
            raise self.chat.error_type(
                f"The server refuses the batch {submitted.id}.",
                "; ".join(reasons) or "It does not say why.",
                "Correct that and start the same command again; what was answered is kept.",
            )
        replies: dict[str, Reply | NoReply] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                text = self._asked(_text, self.chat.client.files.content, file_id)
                # An answer may hold a character at which splitlines() would cut.
                for line in filter(str.strip, text.split("\n")):
                    self._read_line(line, replies)
        for key in submitted.keys:
            replies.setdefault(key, NoReply(f"the batch ended without it ({batch.status})"))
        return replies

    def _read_line(self, line: str, replies: dict[str, Reply | NoReply]) -> None:
        """Adds the reply of one line; a line that is none is left out."""
        try:
            row = parse_json(line)
            key = row["custom_id"]
            response = row.get("response") or {}
            fault = row.get("error") or {}
            if response.get("status_code") == 200:
                replies[key] = self.chat.read(response["body"])
            else:
                body = response.get("body") or {}
                fault = fault or body.get("error") or body
                words = fault.get("message", fault) if isinstance(fault, Mapping) else fault
                replies[key] = NoReply(f"the server says: {one_line(words, 160)}")
        except NoReply as error:
            replies[key] = error
        except GARBLED:
            return

    def _asked(self, read: Callable[[Any], Any], call: Any, *arguments: Any, **named: Any) -> Any:
        """What `read` makes of what the server says, which is asked again if that is garbled.

        Raises BenchError if it stays so, or as `_answered` does.
        """
        pauses = list(chat.GARBLED_PAUSES)
        while True:
            try:
                return read(self._answered(call, *arguments, **named))
            except GARBLED as error:
                if not pauses:
                    raise self.chat.error_type(
                        f"{self.chat.model} cannot be asked in batches.",
                        f"What the server says of them is none of the protocol: "
                        f"{type(error).__name__}: {one_line(error, 160)}",
                        "Start the same command again; batches under way go on, and what was "
                        "answered is kept.",
                    ) from error
                sleep(pauses.pop(0))

    def _answered(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """What the server says. Raises BenchError if it cannot be asked, or has no Batch API."""
        import openai

        try:
            return call(*arguments, **named)
        except openai.NotFoundError as error:
            raise self.chat.error_type(
                f"{self.chat.model} cannot be asked in batches.",
                f"The server has no Batch API, or does not know this batch: {one_line(error, 160)}",
                f"Leave out --batch. If the batch is gone, delete {self.file}: what it has not "
                "answered is sent again.",
            ) from error
        except openai.OpenAIError as error:
            raise self.chat.error_type(
                f"{self.chat.model} cannot be asked in batches.",
                f"{type(error).__name__}: {one_line(error.__cause__ or error, 160)}",
                "Start the same command again; batches under way go on, and what was answered is "
                "kept.",
            ) from error


def _with_id(uploaded: Any) -> Any:
    """A file, or a batch, that has an id. Raises one of GARBLED if it is none."""
    _check_id("id", uploaded.id)
    return uploaded


def _batch(batch: Any) -> Any:
    """A batch in a state that there is. Raises one of GARBLED if it is none."""
    if batch.status not in UNDER_WAY + ENDED:
        raise ValueError(f"its status is {batch.status!a}")
    for name in ("output_file_id", "error_file_id"):
        file_id = getattr(batch, name, None)
        if file_id not in (None, ""):
            _check_id(name, file_id)
    return _with_id(batch)


def _check_id(name: str, value: Any) -> None:
    """Raises TypeError if it is no id."""
    if type_fault(Id, value):
        raise TypeError(f"its {name} is {value!a:.80}")


def _batch_of(file_id: str, batches: Any) -> Any:
    """The batch of an uploaded file. Raises one of GARBLED if there is none."""
    for batch in batches.data:
        if batch.input_file_id == file_id:
            return _batch(batch)
    raise LookupError(f"no batch is of {file_id}")


def _text(content: Any) -> str:
    """What a file of replies holds."""
    return str(content.text)
