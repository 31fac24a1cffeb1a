"""What a checkpoint's generation config asks for, and who does it.

A field is one of four things: the shared-image engine applies it (APPLIED), it is the benchmark's
to say (SEARCH, recorded if the checkpoint wants another one), it changes no greedy answer
(NO_INFLUENCE), or, of all that are left, `generate` alone applies it. A field that transformers
will add some day is of the last kind.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from bench.errors import ModelError, one_line

GENERATION_CONFIG = "generation_config.json"
_Token = Annotated[int, Field(ge=0, strict=True)]
APPLIED: dict[str, TypeAdapter[Any]] = {
    "eos_token_id": TypeAdapter(_Token | list[_Token] | None),
    "repetition_penalty": TypeAdapter(Annotated[FiniteFloat, Field(gt=0, strict=True)] | None),
}
# How the most likely answer is searched for. Benchmarks are greedy, or draw from the whole
# distribution, whatever the checkpoint likes for a chat.
SEARCH = (
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "length_penalty",
    "early_stopping",
    "constraints",
    "force_words_ids",
    "penalty_alpha",
    "dola_layers",
    "num_return_sequences",
)
SAMPLING = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
NO_INFLUENCE = (
    "renormalize_logits",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "bos_token_id",
    "decoder_start_token_id",
    "use_mtp",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "prefill_chunk_size",
    "low_memory",
    "compile_config",
    "disable_compile",
    "continuous_batching_config",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "assistant_ensemble_weight",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    "target_lookbehind",
    "speculation_type",
    "transformers_version",
)
ELSEWHERE = frozenset((*APPLIED, *SEARCH, *SAMPLING, *NO_INFLUENCE))
ONE_IS_NOTHING = (
    "guidance_scale",
    "encoder_repetition_penalty",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "length_penalty",
)


def read_generation_config(folder: Path, config: Any) -> Any:
    """The checkpoint's own: its end tokens and penalties are part of the model.

    Without the file, what the model's config says. Raises ModelError if the file is broken, or what
    it says of an answer's end or of repetition is impossible.
    """
    from transformers import GenerationConfig

    has_own = (folder / GENERATION_CONFIG).is_file()
    file = folder / (GENERATION_CONFIG if has_own else "config.json")
    try:
        if has_own:
            generation = GenerationConfig.from_pretrained(folder)
        else:
            generation = GenerationConfig.from_model_config(config)
    except Exception as error:  # it checks its values by their use
        raise ModelError(
            f"{file} cannot be read.",
            f"{type(error).__name__}: {one_line(error)}",
            "Get it again from the checkpoint's source.",
        ) from error
    for name, kind in APPLIED.items():
        value = getattr(generation, name)
        try:
            kind.validate_python(value)
        except ValidationError as error:
            raise ModelError(
                f"{file} holds no possible {name}.",
                f"{error.errors(include_url=False)[0]['msg']}: it is {value!r:.60}.",
                "Get it again from the checkpoint's source.",
            ) from error
    return generation


def without_search(config: Any) -> Any:
    """A copy that looks for one answer, greedily or by drawing from the whole distribution."""
    changed = copy.deepcopy(config)
    usual = type(config)()
    for name in SEARCH + SAMPLING:
        setattr(changed, name, getattr(usual, name, None))
    return changed


def not_applied(config: Any) -> list[str]:
    """Names of what is set and only `generate` applies."""
    known = type(config)().__dict__  # whatever else a file holds, `generate` ignores
    names = []
    for name, value in config.__dict__.items():
        is_field = name in known and not name.startswith("_")
        if is_field and name not in ELSEWHERE and _is_set(name, value):
            names.append(name)
    return sorted(names)


def searches(config: Any) -> dict[str, Any]:
    """The search that the checkpoint wants, where it is another than one answer at a time."""
    wanted = {}
    for name in SEARCH:
        value = getattr(config, name, None)
        if _is_set(name, value):
            wanted[name] = value
    return wanted


def _is_set(name: str, value: Any) -> bool:
    if value is None or value is False or value in ([], {}):
        return False
    if name in ONE_IS_NOTHING:
        return bool(value != 1)
    # An id of 0 is a token; a length, a penalty or a number of tokens of 0 is nothing.
    return value != 0 or name.endswith("token_id")
