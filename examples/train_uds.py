"""Fine-tune a language model on those rows of a mix that teach it most, chosen while it trains (UDS).

python examples/train_uds.py demo/mixes/texts models/small-lm --k 2
python examples/train_uds.py demo/mixes/texts models/small-lm --k 2 --kind max_loss --trainer

Of each micro-batch K rows are trained on. The first is a loop to copy; with `--trainer` `transformers.Trainer` does it,
on several GPUs by `torchrun`, and goes on from its last checkpoint.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
import typer
from pyarrow import dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from tasks.sample.selector import selector
from tasks.sample.trainer import UtilityDiversityTrainer

MICRO_BATCH, ACCUMULATED, RATE = 8, 4, 1e-4


def train(
    mix: str,
    model: str,
    out: str = "demo/tuned",
    kind: str = "uds",
    k: int = 2,
    steps: int = 0,
    max_length: int = 512,
    trainer: bool = False,
) -> None:
    """Train MODEL, a folder or a name on the hub, on K of each 8 rows of MIX; leaves the model in OUT.

    KIND is uds, random, max_loss or max_entropy; STEPS are of the optimizer, 0: through all rows once.
    """
    net, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    texts = dataset.dataset(f"{mix}/data").to_table(["text"], filter=dataset.field("text").is_valid())["text"]
    rows = [tokenizer(text, truncation=True, max_length=max_length) for text in texts.to_pylist()]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)  # labels: the tokens, -100 for padding
    chosen = selector(kind, k, vocab_size=net.config.vocab_size, max_length=max_length)
    (by_trainer if trainer else by_loop)(net, rows, collate, chosen, out, steps)
    if int(os.environ.get("RANK", 0)) == 0:
        net.save_pretrained(out), tokenizer.save_pretrained(out)


def by_loop(net: Any, rows: list, collate: Any, chosen: Any, out: str, steps: int) -> None:
    """Train in a loop of one's own; `chosen.state_dict()` belongs in its checkpoints."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    for number, batch in enumerate(DataLoader(rows, MICRO_BATCH, collate_fn=collate)):
        inputs = {name: values.to(device) for name, values in batch.items()}
        taken = chosen.choose(net, inputs, step=number // ACCUMULATED)  # a forward pass without gradients
        with chosen.training():  # times what is in it
            loss = net(**taken).loss
            (loss / ACCUMULATED).backward()
        if number % ACCUMULATED == ACCUMULATED - 1:
            optimizer.step()
            optimizer.zero_grad()
            logging.info("step %d: loss %.6f", number // ACCUMULATED + 1, loss.item())
            if number // ACCUMULATED + 1 == steps:
                break
    logging.info("%s", {name: round(value, 3) for name, value in chosen.timing().items()})


def by_trainer(net: Any, rows: list, collate: Any, chosen: Any, out: str, steps: int) -> None:
    """Train with `transformers.Trainer`; checkpoints carry the selector, and logs what it counts."""
    arguments = TrainingArguments(
        output_dir=f"{out}/checkpoints",
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ACCUMULATED,
        learning_rate=RATE,
        num_train_epochs=1,
        max_steps=steps or -1,
        logging_steps=1,
        save_steps=50,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),  # else processes without a GPU do not find each other
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).exists() else None
    trainer = UtilityDiversityTrainer(net, arguments, train_dataset=rows, data_collator=collate, selector=chosen)
    trainer.train(resume_from_checkpoint=last)


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(message)s")
    typer.run(train)
