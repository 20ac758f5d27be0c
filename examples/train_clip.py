"""Train CLIP on a mix, in the mix's own batches, on one process or many; stopped, it goes on where it was.

python examples/train_clip.py demo/mixes/openmoji --steps 8
torchrun --nproc-per-node 2 examples/train_clip.py demo/mixes/openmoji
"""

import logging
import os
from pathlib import Path

import open_clip
import torch
import typer
from safetensors.torch import save_file
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tasks.emit.loader import MixBatches

POCKET = "local-dir:configs/models/pocket"


def train(mix: str, out: str = "demo/trained", model: str = POCKET, steps: int = 0, every: int = 50) -> None:
    """Train on `steps` batches of MIX on every rank (0: on all), saving `every` so many; leaves `model.safetensors`."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    if world > 1:
        distributed.init_process_group()  # NCCL for what is on GPUs, else gloo
    net, _, transform = open_clip.create_model_and_transforms(model, device=device)
    both = DistributedDataParallel(net) if world > 1 else net
    tokenize, clip = open_clip.get_tokenizer(model), open_clip.ClipLoss(False, True, rank=rank, world_size=world)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    data = MixBatches(mix, columns=["image", "text"], transform=transform)
    checkpoint, begun = Path(out, "checkpoint.pt"), 0
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"])
        data.load_state_dict(saved["data"])  # fits any number of ranks and workers
        begun = saved["done"]
    for done, batch in enumerate(DataLoader(data, batch_size=None, num_workers=2), begun + 1):
        if steps and done > steps:
            break
        loss = clip(*both(batch["image"].to(device), tokenize(batch["text"]).to(device)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logging.info("step %d: loss %.6f", done, loss.item())
        if rank == 0 and done % every == 0:
            state = {"done": done, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "data": data.state_after(done - begun)}, f"{checkpoint}.tmp")
            os.replace(f"{checkpoint}.tmp", checkpoint)
    if rank == 0:
        save_file(net.state_dict(), Path(out, "model.safetensors"))


if __name__ == "__main__":
    logging.basicConfig(level="WARNING" if int(os.environ.get("RANK", 0)) else "INFO", format="%(message)s")
    typer.run(train)
