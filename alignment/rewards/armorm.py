"""ArmoRM: nineteen rewards of a response, mixed by a gate that reads the instruction.

Wang et al. 2024, arXiv 2406.12845, section 3. The checkpoint's own code imports what transformers 5
no longer has; this is the same network, read from its safetensors without that code.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from alignment.settings import RecipeError

ARCHITECTURE = "LlamaForRewardModelWithGating"  # in the published config.json
# Where the instruction ends; the gate reads the first of these tokens.
TURN = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


class GatingNetwork(nn.Module):
    """From the state at the end of the instruction to the weight of each objective."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.temperature = getattr(config, "gating_temperature", 10)
        self.logit_scale = nn.Parameter(torch.ones(1))
        widths = [config.hidden_size]
        widths += [getattr(config, "gating_hidden_dim", 1024)] * getattr(
            config, "gating_n_hidden", 3
        )
        widths.append(objectives(config))
        layers = []
        for inputs, outputs in itertools.pairwise(widths):
            layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.ModuleList(layers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Weights (rows, objectives) from states (rows, width)."""
        for layer in self.layers[:-1]:
            states = layer(states).relu()
        logits = self.layers[-1](states) / self.temperature
        weights: torch.Tensor = logits.softmax(-1) * self.logit_scale
        return weights


class ArmoRM(LlamaPreTrainedModel):  # type: ignore[misc]
    """The network, under the names of the published tensors."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        count = objectives(config)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, count, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.zeros(count, count), requires_grad=False)
        self.gating = GatingNetwork(config)
        self.turn: list[int] = []  # TURN as token ids
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> SequenceClassifierOutput:
        """Scores as `logits` (rows, 1).

        Args:
            input_ids: Conversations of an instruction and a response, padded behind.
            attention_mask: 1 where a conversation is.

        Raises:
            RecipeError: A conversation has no turn of the assistant.
        """
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        ends = attention_mask.sum(-1) - 1
        turns = torch.tensor([self._turn_in(ids) for ids in input_ids.tolist()], device=ends.device)
        rewards = self.regression_layer(states[rows, ends])  # (rows, objectives)
        weights = self.gating(states[rows, turns])
        scores = (weights * (rewards @ self.reward_transform_matrix)).sum(-1, keepdim=True)
        return SequenceClassifierOutput(logits=scores)

    def _turn_in(self, ids: list[int]) -> int:
        """Where the last turn of the assistant begins."""
        for start in range(len(ids) - len(self.turn), -1, -1):
            if ids[start : start + len(self.turn)] == self.turn:
                return start
        raise RecipeError(
            "ArmoRM finds no turn of the assistant.",
            f"Its chat template does not write {TURN!r}.",
            "Put the published tokenizer_config.json back.",
        )


def objectives(config: Any) -> int:
    """How many rewards the network gives before they are mixed."""
    return int(getattr(config, "num_objectives", 19))
