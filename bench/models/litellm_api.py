"""`litellm:PROVIDER/MODEL[@URL]`: a model of any provider that the litellm package knows.

litellm speaks each provider's own protocol and gives its replies the form of a chat completion, so
all behind it is that of `openai:…` (bench/chat.py): the same requests, refusals and reading. A
provider that refuses an argument is asked without it, which run.json says; nothing is dropped
silently. Keys are the providers' own variables, such as ANTHROPIC_API_KEY.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from bench.chat import TIMEOUT, Busy, Chat, Reply, read_completion
from bench.errors import one_line
from bench.models.openai_api import OpenAIModel

LOCAL_PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"  # without it litellm asks the network at its import


class LiteLLMChat(Chat):
    """A model behind litellm; arguments as for Chat."""

    def describe(self) -> dict[str, Any]:
        """As Chat's, of another kind."""
        return super().describe() | {"kind": "litellm"}

    def check(self) -> None:
        """Raises if the package, the provider or a key is missing."""
        import openai

        try:
            self.client.get_llm_provider(self.model)
        except openai.OpenAIError as error:
            raise self.error_type(
                f"litellm knows no provider of {self.model}.",
                one_line(error, 160),
                "Write PROVIDER/MODEL as litellm's documentation does, for example "
                "anthropic/claude-sonnet-4-5.",
            ) from error
        missing = self.client.validate_environment(self.model)["missing_keys"]
        if missing and not self.key_variable and self.url is None:
            raise self.error_type(
                f"There is no key for {self.model}.",
                f"{' and '.join(missing)} is not set.",
                "Set it, or name another variable with --api-key-env.",
            )

    def served_model(self) -> dict[str, Any] | None:
        """None: providers say nothing of a model's weights."""
        return None

    @cached_property
    def client(self) -> Any:
        """The package. Raises if it is not installed."""
        os.environ.setdefault(LOCAL_PRICES, "True")
        try:
            import litellm
        except ImportError as error:
            raise self.error_type(
                f"litellm:{self.model} needs litellm.",
                f"It cannot be imported: {one_line(error, 160)}.",
                "pip install 'synth-align[litellm]'",
            ) from error
        litellm.suppress_debug_info = True  # it prints a hint at every error
        return litellm

    def _complete(self, request: dict[str, Any]) -> Reply:
        import openai

        key = os.environ.get(self.key_variable) if self.key_variable else None
        try:
            completion = self.client.completion(
                **request, **self.options, api_base=self.url, api_key=key, timeout=TIMEOUT
            )
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            # A refusal is the caller's; all else may pass by.
            is_refusal = isinstance(error, openai.APIStatusError) and error.status_code < 500
            if is_refusal and not isinstance(error, openai.RateLimitError):
                raise
            raise Busy(f"{type(error).__name__}: {one_line(error, 160)}") from error
        return read_completion(completion)


class LiteLLMModel(OpenAIModel):
    """A model of one of litellm's providers; arguments as for OpenAIModel, without batches."""

    CHAT = LiteLLMChat
    OPTIONS = OpenAIModel.OPTIONS - {"batch"}
