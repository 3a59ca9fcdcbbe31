"""Train a small 3D network to find a structure in the patches of a dataset, on a CPU, resumable at every step.

    builder phantom --to .demo/phantom
    builder build specs/phantom.yaml --param phantom=.demo/phantom --to .demo/dataset
    python examples/train.py .demo/dataset --label tumor

Prints the loss of every epoch and the Dice overlap on the validation split. ``--checkpoint FILE`` keeps weights and the
reader's state, and goes on from them.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from builder.reader import Dataset, State, open_dataset


def main() -> None:
    """Train, validate, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset")
    options.add_argument("--label", default="tumor")
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--checkpoint", type=Path)
    arguments = options.parse_args()
    torch.manual_seed(0)
    dataset = open_dataset(arguments.dataset, fields=["image", arguments.label])
    model, state = make_model(), State(seed=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    if arguments.checkpoint and arguments.checkpoint.is_file():
        kept = torch.load(arguments.checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        state = State.from_dict(kept["state"])
    for epoch in range(state.epoch, arguments.epochs):
        loss, state = train_epoch(dataset.split("train"), model, optimiser, state, arguments)
        dice = validate(dataset.split("validation"), model, arguments.label)
        print(f"epoch {epoch:3d}   loss {loss:.4f}   validation Dice {dice:.3f}", flush=True)


def make_model() -> nn.Module:
    """Three convolutions; sees 7 voxels along each axis."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 8)):
        layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.InstanceNorm3d(outputs, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv3d(8, 1, 3, padding=1))


def train_epoch(
    train: Dataset, model: nn.Module, optimiser: torch.optim.Optimizer, state: State, arguments: argparse.Namespace
) -> tuple[float, State]:
    """The rest of the epoch of ``state``; returns its mean loss and the state of the next."""
    losses = []
    for batch in train.batches(arguments.batch, order="shuffled", state=state, threads=1):
        image, target = to_tensors(batch, arguments.label)
        logits = model(image)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target) + soft_dice(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert batch.state is not None
        state = batch.state
        if arguments.checkpoint:
            kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state.to_dict()}
            torch.save(kept, arguments.checkpoint)
    return float(np.mean(losses)) if losses else float("nan"), state


@torch.no_grad()
def validate(samples: Dataset, model: nn.Module, label: str) -> float:
    """Dice overlap of all voxels of a split."""
    both = either = 0.0
    for batch in samples.batches(4, threads=1):
        image, target = to_tensors(batch, label)
        found = model(image) > 0
        both += float((found & (target > 0)).sum())
        either += float(found.sum() + target.sum())
    return 2 * both / either if either else 1.0


def soft_dice(logits: Any, target: Any) -> Any:
    """1 minus the overlap of probabilities."""
    probability = torch.sigmoid(logits)
    return 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)


def to_tensors(batch: Any, label: str) -> tuple[Any, Any]:
    """Hounsfield units of soft tissue to about -1 to 1, and the label as 0 and 1."""
    image = torch.from_numpy(batch["image"]).float().clamp(-200, 300) / 250
    return image, (torch.from_numpy(batch[label]) > 0).float()


if __name__ == "__main__":
    main()
