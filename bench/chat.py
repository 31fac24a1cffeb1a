"""One question, one reply, from any server that speaks the OpenAI chat protocol.

The openai client retries 408, 409, 429, 5xx, hang-ups and time-outs with exponential back-off and
heeds Retry-After. Replies that are no chat completion are asked for again here. A key goes only to
its own host: OPENAI_API_KEY to OpenAI's (or OPENAI_BASE_URL's), another one to the host of the
model that names its variable. It is never written anywhere.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import yaml

from bench.errors import BenchError, one_line
from bench.yaml_text import parse_yaml

TIMEOUT = 120.0  # seconds
RETRIES = 6
HOST = re.compile(r"@(?:localhost\b|[\w.-]+:\d+|[\w-]+(?:\.[\w-]+)+)[^@]*$")
# What the client, or whoever reads its object, raises over a body that is not of the protocol.
GARBLED = (AttributeError, TypeError, LookupError, ValueError, ArithmeticError, RecursionError)
GARBLED_PAUSES = (0.1, 0.4, 1.6)  # seconds before a garbled reply is asked for again
ROUNDING = 1e-3  # of a log-probability
MOST_TOKENS = 10**9  # no prompt or answer has so many
LIST_TIMEOUT = 5.0  # seconds
# `created` and `permission` of a server's list are new with every request.
MODEL_FACTS = ("root", "parent", "owned_by", "max_model_len")
FEW_LOGPROBS = 5  # what servers give that refuse more
OPENAI_KEY = "OPENAI_API_KEY"
THE_DEFAULT = "The default server"
HIDDEN = "[hidden]"
OPENAI_HOST = "openai.com"
GIVE_UP = 16  # requests in a row that the server does not serve end the run
BUSY_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds to wait for a server that says so in a reply
TOP_LOGPROBS = 20  # the most alternatives that the protocol gives for a token


Item = TypeVar("Item")
Result = TypeVar("Result")


def _is_url(text: str) -> bool:
    try:
        return urlsplit(text).scheme in ("http", "https")
    except ValueError:  # http://[bad/v1
        return False


class NoReply(Exception):  # noqa: N818
    """One request without a usable reply; others may fare better.

    `served` says that the model was asked and says nothing, for example because it refuses.
    """

    def __init__(self, reason: str, served: bool = False) -> None:
        self.served = served
        super().__init__(reason)


# Fields that other options or this code decide.
OWN_FIELDS = tuple("model messages input stream n temperature top_p seed max_tokens".split())
# A chat request's fields under the Responses API's names.
RESPONSE_NAMES = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_logprobs": "top_logprobs",
}


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Args:
        text: The reply.
        cut_off: Whether it ended at the token limit.
        prompt_tokens: Prompt tokens as the server counts them; None if it does not.
        tokens: Generated tokens as the server counts them.
        first_token: Forms of the first token with their probabilities, as far as the server gives
            them. Two tokens may have one form, such as "Yes" and "▁Yes".
        thoughts: What a reasoning model thought, if the server tells it apart.
    """

    text: str
    cut_off: bool = False
    prompt_tokens: int | None = None
    tokens: int = 0
    first_token: Sequence[tuple[str, float]] = ()
    thoughts: str = ""


class FurtherArguments(TypedDict, total=False):
    """What a chat request may say beside its message, temperature and limit.

    Args:
        seed: Passed on to the server.
        system: System prompt; none if empty.
        logprobs: Whether to ask for the alternatives of the first token.
        top_p: Of sampling; 1 for the whole distribution.
    """

    seed: int | None
    system: str
    logprobs: bool
    top_p: float


class Busy(Exception):  # noqa: N818
    """A server that asks to wait, within a reply of status 200."""


class Outage:
    """Notices that a server serves nothing any more.

    Args:
        model: What the server's model is called.
        error_type: The kind of BenchError that ends the run.
    """

    def __init__(self, model: str, error_type: type[BenchError]) -> None:
        self.model, self.error_type = model, error_type
        self.unserved = 0  # requests in a row

    def after(self, served: bool, reason: str) -> BenchError | None:
        """The error that ends the run, if this request was one too many.

        Args:
            served: Whether the server is alive: a refusal is an answer too.
            reason: Why the request has no reply.
        """
        self.unserved = 0 if served else self.unserved + 1
        if self.unserved < GIVE_UP:
            return None
        return self.error_type(
            f"{self.model} does not answer.",
            f"The last {GIVE_UP} requests failed; the last one: {reason}",
            "Check that the server is running, then start the same command again; "
            "what was answered is kept.",
        )


class Parallel(Generic[Item, Result]):
    """Does `work` on every item in threads.

    They are daemons: a process that is to end does not wait for a server that hangs, as it would
    for the threads of concurrent.futures.

    Args:
        work: What is done with an item. A BenchError that it raises is its result, and no new item
            is begun.
        items: The items.
        threads: How many are under way at a time.
    """

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> None:
        self.work, self.threads = work, min(threads, len(items))
        self._todo: SimpleQueue[tuple[int, Item]] = SimpleQueue()
        for pair in enumerate(items):
            self._todo.put(pair)
        # (index, item, result), or None from a thread that has nothing more to do.
        self._done: SimpleQueue[tuple[int, Item, Result | Exception] | None] = SimpleQueue()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begins no new item; what is under way is still handed over."""
        self._stopped.set()

    def __iter__(self) -> Iterator[tuple[Item, Result | BenchError]]:
        """Every item with its result, in the order in which they come.

        Raises what `work` raises, if it is no BenchError.
        """
        for _, item, result in self._results():
            yield item, result

    def in_order(self) -> Iterator[tuple[Item, Result | BenchError]]:
        """The same in the order of the items."""
        ready: dict[int, tuple[Item, Result | BenchError]] = {}
        following = 0
        for index, item, result in self._results():
            ready[index] = item, result
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _results(self) -> Iterator[tuple[int, Item, Result | BenchError]]:
        for _ in range(self.threads):
            threading.Thread(target=self._run, daemon=True).start()
        running = self.threads
        try:
            while running:
                entry = self._done.get()
                if entry is None:
                    running -= 1
                    continue
                index, item, result = entry
                if isinstance(result, Exception) and not isinstance(result, BenchError):
                    raise result
                yield index, item, result  # type: ignore[misc]
        finally:
            self.stop()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                index, item = self._todo.get_nowait()
            except Empty:
                break
            try:
                self._done.put((index, item, self.work(item)))
            except Exception as error:
                self.stop()
                self._done.put((index, item, error))
        self._done.put(None)


class HasError(Protocol):
    """An answer or a verdict: `error` says why there is none."""

    @property
    def error(self) -> str | None:
        """None if there is one."""


Answered = TypeVar("Answered", bound=HasError)


def ask_all(
    ask: Callable[[Item], tuple[Answered, bool]],
    items: Sequence[Item],
    threads: int,
    outage: Outage,
) -> Iterator[tuple[Item, Answered]]:
    """Every item with its result, in the order in which they come.

    Args:
        ask: Asks about one item; says whether the server is alive, too.
        items: The items.
        threads: Requests at a time.
        outage: What notices that the server serves nothing any more.

    Raises:
        BenchError: What `ask` raises, or the outage, after what is under way was handed over.
    """
    fault: BenchError | None = None
    requests = Parallel(ask, items, threads)
    for item, outcome in requests:
        # No new request is made after a fault, but what is under way was paid for.
        if isinstance(outcome, BenchError):
            fault = fault or outcome
            continue
        result, served = outcome
        fault = fault or outage.after(served, str(result.error))
        if fault is not None:
            requests.stop()
        yield item, result
    if fault is not None:
        raise fault


class Chat:
    """A model behind a server.

    Args:
        spec: MODEL or MODEL@URL.
        error_type: The kind of BenchError to raise.
        key_variable: The environment variable that holds the server's key; None for
            OPENAI_API_KEY, which goes to OpenAI only.
        options: Further fields of every request, as NAME=VALUE; values are read as YAML.
    """

    def __init__(
        self,
        spec: str,
        error_type: type[BenchError],
        key_variable: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.key_variable = key_variable
        self.options = api_options(options, error_type)
        # A model's own name may hold an @, so the last one before an address divides.
        match = re.fullmatch(r"(?P<model>.*?)(?:@(?P<url>[a-z]+://.*))?", spec)
        self.model, url = spec, ""
        if match is not None and match["url"]:
            self.model, url = match["model"], match["url"]
        self.url = url or os.environ.get("OPENAI_BASE_URL") or None
        self.error_type = error_type
        # What is learned from the server's refusals, once for all threads.
        self._limit_name = "max_tokens"
        self._top_logprobs = TOP_LOGPROBS
        self._has_temperature = True
        self._takes_seed = True
        self._only_responses = False  # some models are not served as chat completions
        self.negotiated: dict[str, None] = {}  # what it refuses, in words
        is_no_url = url and not _is_url(url)
        # localhost:8000/v1 without its scheme is an address that was typed in a hurry.
        is_bare_host = HOST.search(self.model) is not None
        if not self.model or is_no_url or is_bare_host:
            raise error_type(
                f"openai:{spec} names no model.",
                "The form is openai:MODEL or openai:MODEL@URL.",
                "Give both in full.",
            )

    def describe(self) -> dict[str, Any]:
        """Model and server (host, port and path), without credentials."""
        server = "default"
        if self.url:
            url = urlsplit(self.url)
            port = f":{url.port}" if url.port else ""
            server = f"{url.hostname}{port}{url.path.rstrip('/')}"
        described: dict[str, Any] = {"kind": "openai", "model": self.model, "server": server}
        return described | ({"options": self.options} if self.options else {})

    def check(self) -> None:
        """Raises if there is no key, the server cannot be reached, or it refuses the key."""
        import openai

        client = self.client  # outside: that there is no key is an error, and told
        try:
            client.with_options(max_retries=1, timeout=LIST_TIMEOUT).models.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self.error_type(
                f"{self.model} cannot be reached.",
                f"{self.without_secrets(f'{self.url or THE_DEFAULT}: {_brief(cause)}')}.",
                "Check that the server is running, the URL and the network.",
            ) from error
        except Exception:  # it lives; many servers have no list of models
            return

    def _learned_from(self, error: Any, asked: Mapping[str, Any]) -> bool:
        """Whether a refusal says which argument to leave out; it is left out from then on."""
        words = _brief(error)
        if "v1/responses" in words and not self._only_responses:
            self._only_responses = True
            self.negotiated["asked through the Responses API, which takes no seed"] = None
            return True
        if "logprobs" in asked and "logprobs" in words:
            # vLLM gives five by default, some servers none.
            is_first = asked["top_logprobs"] > FEW_LOGPROBS
            self._top_logprobs = FEW_LOGPROBS if is_first else 0
            if not self._top_logprobs:
                self.negotiated["the server refuses logprobs: there is no P(yes)"] = None
            return True
        if "max_tokens" in asked and "max_completion_tokens" in words:
            self._limit_name = "max_completion_tokens"
            return True
        if "temperature" in asked and "temperature" in words:
            self._has_temperature = False
            default = f"the server refuses temperature {asked['temperature']:g}: asked at its own"
            self.negotiated[default] = None
            return True
        if "seed" in asked and "seed" in words:
            self._takes_seed = False
            self.negotiated["the server takes no seed: a draw cannot be repeated"] = None
            return True
        return False

    def _refused(self, error: Any) -> BenchError:
        return self.error_type(
            f"{self.model} cannot be asked.",
            f"The server says {error.status_code}: {self.without_secrets(_brief(error))}.",
            f"Check the model's name, the URL and the key{self._key_hint()}; "
            "what was answered so far is kept.",
        )

    def served_model(self) -> dict[str, Any] | None:
        """What the server's list of models says of this one, None if it says nothing.

        Two checkpoints may be served under one name; vLLM and others tell which it is.
        """
        # The commercial servers' lists hold thousands of models and nothing of use.
        if self.url is None:
            return None
        try:
            models = self.client.with_options(max_retries=0, timeout=LIST_TIMEOUT).models.list()
            for model in models.data:
                if model.id == self.model:
                    content = model.to_dict()
                    return {key: content[key] for key in MODEL_FACTS if content.get(key)}
        except Exception:  # many servers have no list, or one of a form of their own
            return None
        return None

    @cached_property
    def client(self) -> Any:
        """The client; safe to use from several threads. Raises if a key is needed and not set."""
        from openai import OpenAI

        key = os.environ.get(self.key_variable or OPENAI_KEY) if self._may_have_key() else None
        # A server of one's own needs none, but the client wants to send something.
        if not key and (self.url is None or self.key_variable):
            raise self.error_type(
                f"There is no key for {self.model}.",
                f"{self.key_variable or OPENAI_KEY} is not set.",
                "Set it, or name a server of your own: openai:MODEL@http://HOST:PORT/v1.",
            )
        base_url, query, headers = self.url, {}, {}
        if self.url and urlsplit(self.url).query:
            # Azure's deployments have their version behind the path, and the key in a header.
            parts = urlsplit(self.url)
            base_url = urlunsplit(parts._replace(query=""))
            query = dict(parse_qsl(parts.query))
            headers = {"api-key": key} if key else {}
        return OpenAI(
            api_key=key or "none",
            base_url=base_url,
            default_query=query,
            default_headers=headers,
            max_retries=RETRIES,
            timeout=TIMEOUT,
        )

    def _key_hint(self) -> str:
        if self._may_have_key():
            return f" in {self.key_variable or OPENAI_KEY}"
        return f": {OPENAI_KEY} goes to OpenAI only, --api-key-env NAME names another"

    def _may_have_key(self) -> bool:
        """Whether the key in the variable is this server's."""
        if self.url is None or self.key_variable:
            return True
        host = urlsplit(self.url).hostname or ""
        is_openai = host == OPENAI_HOST or host.endswith(f".{OPENAI_HOST}")
        # Who sets both variables says that they belong together.
        return is_openai or self.url == os.environ.get("OPENAI_BASE_URL")

    def without_secrets(self, text: str) -> str:
        """A text without the key and what the URL holds of the kind: a server may echo them."""
        url = urlsplit(self.url or "")
        secrets = [value for _, value in parse_qsl(url.query)]
        secrets += [url.password or "", unquote(url.password or "")]
        if self._may_have_key():
            secrets.append(os.environ.get(self.key_variable or OPENAI_KEY) or "")
        for secret in sorted(secrets, key=len, reverse=True):
            # A short text stands in others by chance.
            if len(secret) > 3:
                text = text.replace(secret, HIDDEN)
        return text

    def ask(
        self,
        content: str | list[dict[str, Any]],
        temperature: float,
        max_tokens: int,
        **further: Unpack[FurtherArguments],
    ) -> Reply:
        """The reply to one message.

        A server that knows no logprobs, or bounds an answer by `max_completion_tokens`, is asked
        its way from then on.

        Args:
            content: The user's message: a text, or parts with images.
            temperature: Of sampling; 0 is greedy.
            max_tokens: Upper bound of the reply's length.
            further: As FurtherArguments says.

        Raises:
            NoReply: This request has no usable reply.
            BenchError: The server refuses the key or the model (of the type given to Chat).
        """
        try:
            return self._ask(content, temperature, max_tokens, **further)
        except NoReply as error:
            raise NoReply(self.without_secrets(str(error)), error.served) from error

    def _ask(
        self,
        content: str | list[dict[str, Any]],
        temperature: float,
        max_tokens: int,
        **further: Unpack[FurtherArguments],
    ) -> Reply:
        import openai

        pauses, waits = list(GARBLED_PAUSES), list(BUSY_PAUSES)
        while True:
            # Made once a round: another thread may learn of a refusal meanwhile.
            request = self.request(content, temperature, max_tokens, **further)
            try:
                reply = self._complete(request)
                if "logprobs" in request and not reply.first_token:
                    self.negotiated["the server gives no alternatives of the first token"] = None
                return reply
            except Busy as error:
                if not waits:
                    raise NoReply(str(error)) from error
                time.sleep(waits.pop(0))
            except (openai.PermissionDeniedError, openai.NotFoundError) as error:
                if not self._learned_from(error, request):
                    raise self._refused(error) from error
            except openai.AuthenticationError as error:
                raise self._refused(error) from error
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._learned_from(error, request):
                    raise NoReply(f"{type(error).__name__}: {_brief(error)}") from error
            except (openai.APIResponseValidationError, *GARBLED) as error:
                if not pauses:
                    raise NoReply("the reply is not a chat completion") from error
                time.sleep(pauses.pop(0))
            except openai.OpenAIError as error:
                cause = error.__cause__ or error
                raise NoReply(f"{type(error).__name__}: {_brief(cause)}") from error

    def request(
        self,
        content: str | list[dict[str, Any]],
        temperature: float,
        max_tokens: int,
        **further: Unpack[FurtherArguments],
    ) -> dict[str, Any]:
        """A chat request as the server takes it, as far as is known; arguments as for `ask`."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        system, seed = further.get("system"), further.get("seed")
        if system:
            messages.insert(0, {"role": "system", "content": system})
        request: dict[str, Any] = {"model": self.model, "messages": messages}
        if seed is not None and self._takes_seed:
            request["seed"] = seed
        if further.get("top_p", 1.0) < 1:
            request["top_p"] = further["top_p"]
        request[self._limit_name] = max_tokens
        if self._has_temperature:
            request["temperature"] = temperature
        if further.get("logprobs") and self._top_logprobs:
            request |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        return request

    @property
    def batch_path(self) -> str:
        """Where a request of a batch goes."""
        return "/v1/responses" if self._only_responses else "/v1/chat/completions"

    def batch_body(self, request: dict[str, Any]) -> dict[str, Any]:
        """What stands in a batch for a chat request."""
        body = _as_response(request) if self._only_responses else request
        return body | self.options

    def read(self, body: Mapping[str, Any]) -> Reply:
        """The reply of a response's body. Raises NoReply, or one of GARBLED."""
        from openai.types.chat import ChatCompletion
        from openai.types.responses import Response

        if self._only_responses:
            return _read_response(Response.construct(**body))
        return read_completion(ChatCompletion.construct(**body))

    def _complete(self, arguments: dict[str, Any]) -> Reply:
        """The reply to a chat request, by the Responses API if the model has no other."""
        extra = {"extra_body": self.options} if self.options else {}
        if not self._only_responses:
            return read_completion(self.client.chat.completions.create(**arguments, **extra))
        return _read_response(self.client.responses.create(**_as_response(arguments), **extra))


def api_options(
    texts: Sequence[str], error_type: type[BenchError], own: Sequence[str] = OWN_FIELDS
) -> dict[str, Any]:
    """Fields from NAME=VALUE. Raises `error_type` for what is none, or is among our `own`."""
    options: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        name = name.strip()
        try:
            options[name] = parse_yaml(value)
        except yaml.YAMLError as error:
            raise error_type(
                f"--api-option {text} cannot be read.", one_line(error), "Write NAME=VALUE."
            ) from error
        if not name or not separator or name in own:
            raise error_type(
                f"--api-option cannot be '{text}'.",
                f"It is NAME=VALUE; {', '.join(own)} are said otherwise.",
                "Use --decoding, --max-tokens and the model's name for these.",
            )
    return options


def _as_response(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request's arguments as the Responses API has them."""
    messages = []
    for message in arguments["messages"]:
        content = message["content"]
        parts: list[Any] = content
        if isinstance(content, str):
            parts = [{"type": "text", "text": content}]
        inputs = []
        for part in parts:
            if part["type"] == "text":
                inputs.append({"type": "input_text", "text": part["text"]})
            else:
                inputs.append({"type": "input_image", "image_url": part["image_url"]["url"]})
        messages.append({"role": message["role"], "content": inputs})
    request: dict[str, Any] = {"model": arguments["model"], "input": messages, "store": False}
    for name, its_name in RESPONSE_NAMES.items():
        if name in arguments:
            request[its_name] = arguments[name]
    if "top_logprobs" in arguments:
        request["include"] = ["message.output_text.logprobs"]
    return request


def _read_response(response: Any) -> Reply:
    """The parts of a response. Raises as `read_completion` does."""
    if getattr(response, "error", None):
        raise NoReply(f"the server says: {_brief(response.error.message)}")
    texts, thoughts = [], []
    first: list[tuple[str, float]] = []
    for item in response.output:
        if item.type == "reasoning":
            thoughts += [part.text for part in item.summary or ()]
        if item.type != "message":
            continue
        for part in item.content:
            if part.type == "refusal":
                raise NoReply(f"the model refuses: {_brief(part.refusal)}", served=True)
            texts.append(part.text)
            logprobs = getattr(part, "logprobs", None)
            first = first or _first_token(SimpleNamespace(content=logprobs))
    is_cut = response.status == "incomplete"
    if not "".join(texts).strip():
        reason = "the model only thought" if thoughts or is_cut else "nothing was said"
        if is_cut:
            reason += ", and was cut off at the token limit"
        raise NoReply(reason, served=True)
    usage = response.usage
    return Reply(
        "".join(texts),
        is_cut,
        _count(usage, "input_tokens"),
        _count(usage, "output_tokens") or 0,
        first,
        "\n".join(thoughts),
    )


def read_completion(completion: Any) -> Reply:
    """The parts of a completion.

    Raises NoReply if nothing is said, and one of GARBLED if it is no completion.
    """
    error = getattr(completion, "error", None)
    if error and not completion.choices:
        code, words = None, error
        if isinstance(error, Mapping):
            code, words = error.get("code"), error.get("message", error)
        if str(code) in ("408", "429", "500", "502", "503", "504"):
            raise Busy(f"the server says {code}: {one_line(words, 160)}")
        raise NoReply(f"the server says: {one_line(words, 160)}")
    choice = completion.choices[0]
    # Servers put null, a refusal, a list of parts or nothing where the text should be.
    text, thoughts = _parts(choice.message.content)
    thoughts = thoughts or str(
        getattr(choice.message, "reasoning_content", None)
        or getattr(choice.message, "reasoning", None)
        or ""
    )
    refusal = getattr(choice.message, "refusal", None)
    if choice.finish_reason == "content_filter" or (not text and refusal):
        raise NoReply(f"the model refuses: {_brief(refusal or 'content filter')}", served=True)
    if not text.strip():
        reason = "the model only thought" if thoughts else "nothing was said"
        if choice.finish_reason == "length":
            reason += ", and was cut off at the token limit"
        raise NoReply(reason, served=True)
    usage = getattr(completion, "usage", None)
    return Reply(
        text,
        choice.finish_reason == "length",
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens") or 0,
        _first_token(getattr(choice, "logprobs", None)),
        thoughts,
    )


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens, None if the server gives none."""
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and 0 <= count < MOST_TOKENS else None


def _parts(content: Any) -> tuple[str, str]:
    """The text and the thoughts of a message's content. Raises TypeError if it is something else.

    Magistral and others answer in a list of parts.
    """
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = [], []
    for part in content:
        if part["type"] == "text":
            texts.append(part["text"])
        elif part["type"] in ("thinking", "reasoning"):
            inner = part.get(part["type"], part.get("text", ""))
            thoughts.append(inner if isinstance(inner, str) else _parts(inner)[0])
    return "".join(texts), "\n".join(thoughts)


def _first_token(logprobs: Any) -> list[tuple[str, float]]:
    """The alternatives of the first token; none if the server gives them in no form we know."""
    content = getattr(logprobs, "content", None)
    alternatives = getattr(content[0], "top_logprobs", None) if content else None
    tokens: dict[tuple[Any, ...], float] = {}
    for alternative in alternatives or ():
        logprob = alternative.logprob
        if isinstance(logprob, int | float):
            # Rounding makes a certain one a little likelier than that.
            if not logprob <= ROUNDING:
                return []
            # The same token twice is one; "Yes" and "▁Yes" are two of one form.
            key = (alternative.token, tuple(alternative.bytes or ()), logprob)
            tokens[key] = math.exp(min(0.0, logprob))
    return [(str(key[0]), probability) for key, probability in tokens.items()]


def _brief(error: object) -> str:
    """What the client says, and the server's own words if the client has not found them."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and "detail" in body:
        return one_line(f"{error} {body['detail']}", 160)
    return one_line(error, 160)
