"""A pair as one row: the image and the prompt once, chosen and rejected response behind them.

What the shared-image engine does for questions (`bench/models/shared_image.py`), in training. The
pairs of a batch stand behind one another in one row without padding, and every token sees what it
would see in a row of its own:

    prompt 1   chosen 1   rejected 1   prompt 2   chosen 2   rejected 2

A response is blind to the other one, and its positions go on from its prompt's. trl gets the hidden
states in the two rows a pair that it expects, and computes log-probabilities and any loss as ever.
LLaVA-1.5's image has 576 tokens, so a pair of short responses has little more than half of the
tokens of two rows. Loss and gradient are those of two rows, in other sums of floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "pairs_behind_prefix"  # registered with transformers


class TokenPair(NamedTuple):
    """A pair as token ids.

    Args:
        prompt: The prompt, the image's placeholders written out.
        positions: The prompt's positions, shape (1, tokens), or (3, 1, tokens) by M-RoPE.
        chosen: The chosen response and its end.
        rejected: The rejected response and its end.
    """

    prompt: list[int]
    positions: torch.Tensor
    chosen: list[int]
    rejected: list[int]


def pack(pairs: Sequence[TokenPair]) -> dict[str, torch.Tensor]:
    """A batch of pairs, as trl and the network that `share_prefix` changed take it.

    Returns:
        For trl, each response behind the last token of its prompt, padded behind, all chosen ones
        first: `input_ids`, `attention_mask` and `completion_mask` of shape (2 × pairs, tokens).
        For the network: `packed_ids` (1, packed), `packed_positions` (1, packed) or (3, 1, packed),
        `packed_lengths` (pairs, 3) of prompt, chosen and rejected, and `packed_columns`
        (2 × pairs, tokens), where in the packed row each of trl's tokens stands.
    """
    ids: list[int] = []
    positions = []
    lengths = []
    columns_of_chosen: list[list[int]] = []
    columns_of_rejected: list[list[int]] = []
    for pair in pairs:
        start_of_chosen = len(ids) + len(pair.prompt)
        start_of_rejected = start_of_chosen + len(pair.chosen)
        end = start_of_rejected + len(pair.rejected)
        last_of_prompt = start_of_chosen - 1
        columns_of_chosen.append([last_of_prompt, *range(start_of_chosen, start_of_rejected)])
        columns_of_rejected.append([last_of_prompt, *range(start_of_rejected, end)])
        ids += [*pair.prompt, *pair.chosen, *pair.rejected]
        lengths.append((len(pair.prompt), len(pair.chosen), len(pair.rejected)))
        next_position = int(pair.positions.max()) + 1
        positions.append(pair.positions)
        for response in (pair.chosen, pair.rejected):
            behind = torch.arange(next_position, next_position + len(response))
            positions.append(behind.expand(*pair.positions.shape[:-1], -1))
    columns_of_all = columns_of_chosen + columns_of_rejected
    width = max(map(len, columns_of_all))
    columns = torch.zeros((len(columns_of_all), width), dtype=torch.long)
    is_token = torch.zeros((len(columns_of_all), width), dtype=torch.bool)
    for row, row_columns in enumerate(columns_of_all):
        columns[row, : len(row_columns)] = torch.tensor(row_columns)
        is_token[row, : len(row_columns)] = True
    packed_ids = torch.tensor([ids])
    completion_mask = is_token.long()
    completion_mask[:, 0] = 0  # the prompt's last token
    return {
        "input_ids": packed_ids[0, columns],
        "attention_mask": is_token.long(),
        "completion_mask": completion_mask,
        "packed_ids": packed_ids,
        "packed_positions": torch.cat(positions, dim=-1),
        "packed_lengths": torch.tensor(lengths),
        "packed_columns": columns,
    }


def share_prefix(model: Any) -> None:
    """Lets a model compute packed batches; all others it computes as before.

    Args:
        model: A `…ForConditionalGeneration` of which `HFModel.not_packed_in_training` is None.
    """
    model.get_decoder().set_attn_implementation(ATTENTION)
    backbone = model.base_model
    forward = backbone.forward

    def packed_forward(
        *,
        packed_ids: torch.Tensor | None = None,
        packed_positions: torch.Tensor | None = None,
        packed_lengths: torch.Tensor | None = None,
        packed_columns: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if packed_lengths is None:
            return forward(**inputs)
        inputs |= {
            "input_ids": packed_ids,
            "position_ids": packed_positions,
            # transformers hands a mask of four dimensions on to the attention as it is. On the CPU,
            # because every layer reads it.
            "attention_mask": packed_lengths.cpu()[None, None],
        }
        output = forward(**inputs)
        output.last_hidden_state = output.last_hidden_state[0][packed_columns]
        return output

    backbone.forward = packed_forward


def _pair_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention over a row of packed pairs.

    Args:
        module: The layer's attention.
        query: Shape (1, heads, packed, width).
        key: Shape (1, key heads, packed, width).
        value: As `key`.
        attention_mask: `packed_lengths` (1, 1, pairs, 3). Another mask, or none, is that of a batch
            that is not packed.
        options: Scaling and dropout.

    Returns:
        The attention's output, shape (1, packed, heads, width), and no weights.
    """
    if attention_mask is None or attention_mask.dtype != torch.long:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output, None
    outputs = []
    start = 0
    # Pair after pair: one mask for all would compute what no token sees.
    for prompt, chosen, rejected in attention_mask[0, 0].tolist():
        middle = start + prompt
        end = middle + chosen + rejected
        of_prompt, _ = sdpa_attention_forward(
            module,
            query[:, :, start:middle],
            key[:, :, start:middle],
            value[:, :, start:middle],
            None,
            is_causal=True,
            **options,
        )
        of_responses, _ = sdpa_attention_forward(
            module,
            query[:, :, middle:end],
            key[:, :, start:end],
            value[:, :, start:end],
            _response_mask(prompt, chosen, rejected, query.device),
            **options,
        )
        outputs += [of_prompt, of_responses]
        start = end
    return torch.cat(outputs, dim=1), None


def _response_mask(prompt: int, chosen: int, rejected: int, device: torch.device) -> torch.Tensor:
    """What the tokens of two responses see: the prompt, and of their own response the past.

    Shape (1, 1, chosen + rejected, prompt + chosen + rejected).
    """
    both = chosen + rejected
    sees = torch.ones((both, both), dtype=torch.bool, device=device).tril()
    sees[chosen:, :chosen] = False
    prompt_columns = sees.new_ones((both, prompt))
    return torch.cat([prompt_columns, sees], dim=1)[None, None]


AttentionInterface.register(ATTENTION, _pair_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
