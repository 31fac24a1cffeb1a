"""trl's DPOTrainer, in which every pair of an update counts alike, however batches cut it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from trl import DPOTrainer

OVER_TOKENS = "sft"  # the loss of trl's that is a mean over tokens; all others are over pairs


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """Means over the whole update.

    trl takes the mean of each batch, and transformers the mean of these. So a token of a batch with
    short responses, or a pair of a batch that is not full, would count more than others.
    """

    loss_weights: list[float]
    mean_sizes: torch.Tensor | None = None  # pairs and chosen tokens of a batch of this update
    set_weights: tuple[float, ...] | None = None  # of the losses, as they were asked for

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of an update; notes their mean size over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            mean = torch.stack([_sizes(batch) for batch in batches]).mean(0)
            self.mean_sizes = self.accelerator.gather(mean.to(device)[None]).mean(0)
        return batches, items

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        """The loss of a batch, weighted by its share of the update."""
        if self.set_weights is None:
            self.set_weights = tuple(self.loss_weights)
        if self.mean_sizes is not None and model.training:
            of_pairs, of_tokens = (_sizes(inputs).to(self.mean_sizes) / self.mean_sizes).tolist()
            weights = []
            for loss, weight in zip(self.loss_types, self.set_weights, strict=True):
                weights.append(weight * (of_tokens if loss == OVER_TOKENS else of_pairs))
            self.loss_weights = weights
        return super().compute_loss(model, inputs, *more, **named)


def _sizes(batch: Mapping[str, Any]) -> torch.Tensor:
    """How many pairs a batch has, and how many tokens their chosen responses."""
    chosen, _ = batch["completion_mask"].chunk(2)
    return torch.stack([torch.tensor(float(len(chosen))), chosen.sum().float().cpu()])
