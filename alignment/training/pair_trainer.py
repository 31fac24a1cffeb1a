"""trl's DPOTrainer, in which every pair of an update counts alike, however batches cut it.

And mDPO (Wang et al., arXiv 2406.11839): beside the preference between two responses, one between
the image and a crop of it, and an anchor that keeps the chosen response's probability up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from alignment.training.collator import CROPS, REFERENCE

OVER_TOKENS = "sft"  # the loss of trl's that is a mean over tokens; all others are over pairs


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """Means over the whole update.

    trl takes the mean of each batch, and transformers the mean of these. So a token of a batch with
    short responses, or a pair of a batch that is not full, would count more than others.
    """

    loss_weights: list[float]
    mean_sizes: torch.Tensor | None = None  # pairs and chosen tokens of a batch of this update
    set_weights: tuple[float, ...] | None = None  # of the losses, as they were asked for

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the adapter's card is ours, trl's knows neither base nor data."""

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
        share_of_pairs = 1.0
        if self.mean_sizes is not None and model.training:
            of_pairs, of_tokens = (_sizes(inputs).to(self.mean_sizes) / self.mean_sizes).tolist()
            weights = []
            for loss, weight in zip(self.loss_types, self.set_weights, strict=True):
                weights.append(weight * (of_tokens if loss == OVER_TOKENS else of_pairs))
            self.loss_weights = weights
            share_of_pairs = of_pairs
        if CROPS not in inputs:
            return super().compute_loss(model, inputs, *more, **named)
        return self._mdpo_loss(model, dict(inputs), share_of_pairs)

    def _mdpo_loss(self, model: Any, inputs: dict[str, Any], share_of_pairs: float) -> torch.Tensor:
        """The sum of the three preferences of mDPO, which weighs them alike."""
        crops = inputs.pop(CROPS)
        of_chosen, _, of_crop = REFERENCE
        ref_crop = inputs.pop(of_crop)
        outputs = []

        def watched(**batch: Any) -> Any:
            outputs.append(model(**batch))
            return outputs[-1]

        loss: torch.Tensor = super().compute_loss(watched, inputs)
        batch = {name: value for name, value in crops.items() if name != "completion_mask"}
        labels = crops["input_ids"].masked_fill(crops["completion_mask"] == 0, -100)
        outputs.append(model(**batch, labels=labels, use_cache=False, fused_lm_head=True))
        # Of both, the first rows are the chosen responses.
        chosen, crop = (output.log_probs.sum(dim=1)[: len(ref_crop)] for output in outputs)
        chosen_reward = self.beta * (chosen - inputs[of_chosen])
        crop_reward = self.beta * (crop - ref_crop)
        of_image = -logsigmoid(chosen_reward - crop_reward)
        anchor = -logsigmoid(chosen_reward)
        margins = self.accelerator.gather((chosen_reward - crop_reward).detach())
        self._metrics["train"]["rewards/image_margins"].append(margins.mean().item())
        return loss + share_of_pairs * (of_image + anchor).mean()


def _sizes(batch: Mapping[str, Any]) -> torch.Tensor:
    """How many pairs a batch has, and how many tokens their chosen responses."""
    chosen, _ = batch["completion_mask"].chunk(2)
    return torch.stack([torch.tensor(float(len(chosen))), chosen.sum().float().cpu()])
