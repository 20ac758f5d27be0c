"""UDS in `transformers`: a Trainer that trains on the rows that a selector takes of each micro-batch.

    trainer = UtilityDiversityTrainer(
        model, args, train_dataset=data, data_collator=collator,
        selector=UtilityDiversitySelector(2, vocab_size=model.config.vocab_size),
    )
    trainer.train()

Needs `pip install 'mixwright[text]'`; only training jobs import this file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tasks.sample.choosing import MicroBatchSelector

try:
    from transformers import Trainer
except ImportError as error:
    raise ImportError("the Trainer needs `transformers`; pip install 'mixwright[text]'") from error

logger = logging.getLogger(__name__)


class SelectiveTraining:
    """For any subclass of `transformers.Trainer`, before it among the bases: `class Mine(SelectiveTraining, Trainer)`.

    Every call of `training_step`, so every step of gradient accumulation, is a micro-batch of candidates; its loss is
    that of the rows taken, the mean over their tokens, divided by the number of accumulated micro-batches. Tokens of
    rows not taken count nowhere: the token count that newer Trainers divide by is of all candidates, and not used.
    Each process of data parallel training has the state of its own selector, in memory and in checkpoints, so that a
    training that is resumed goes on as it would have. The selector's `timing` is in the logs as `selector_*`.

    Args:
        *args: Of the Trainer.
        selector: Takes rows of each micro-batch; `start_step` is in steps of the optimizer.
        **kwargs: Of the Trainer; without `compute_loss_func`, which is told how many tokens all candidates have.
    """

    def __init__(self, *args: Any, selector: MicroBatchSelector, **kwargs: Any) -> None:
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("`compute_loss_func` is given; leave it out, the loss is the model's own")
        super().__init__(*args, **kwargs)
        self.selector = selector
        # The model then takes the mean over the tokens that it is given, and the Trainer divides by micro-batches.
        self.model_accepts_loss_kwargs = False

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Returns the loss of the rows taken, after its backward pass; see `transformers.Trainer`."""
        here: Any = self
        model.train()
        if callable(getattr(here.optimizer, "train", None)):
            here.optimizer.train()  # of a schedule-free optimiser: the weights that are trained
        with here.compute_loss_context_manager():
            chosen = self.selector.choose(model, here._prepare_inputs(inputs), step=here.state.global_step)
        with self.selector.training():
            return super().training_step(model, chosen, None)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log what the Trainer does, and with a loss of training what the selector counted so far."""
        if "loss" in logs:
            logs |= {f"selector_{name}": value for name, value in self.selector.timing().items()}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _state_file(self, folder: str) -> Path:
        here: Any = self
        return Path(folder, f"selector-{here.args.process_index}.safetensors")

    def _save_rng_state(self, output_dir: str) -> None:
        # Called in each process for what is its own, before a checkpoint is told to be there.
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        save_file(self.selector.state_dict(), self._state_file(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is None:
            return
        saved = self._state_file(checkpoint)
        if saved.exists():
            self.selector.load_state_dict(load_file(saved))
        else:
            logger.warning("%s is missing: the selector of this process starts anew, with nothing remembered", saved)


class UtilityDiversityTrainer(SelectiveTraining, Trainer):
    """A `transformers.Trainer` that trains on the rows that its `selector` takes; see `SelectiveTraining`."""
