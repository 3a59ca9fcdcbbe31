"""Train a small network without any label: it fills in what is hidden of an image from what surrounds it, on a CPU.

    builder phantom --pictures --patients 75 --to .demo/pictures
    builder build specs/phantom-pictures.yaml --param pictures=.demo/pictures --to .demo/forms
    python examples/reconstruct.py .demo/forms

Half of the squares of each image are hidden, others in every epoch. What is learned so is a start for a network that
has few labels: ``--checkpoint FILE`` keeps it. Samples have one shape. Prints which share of the variance of the hidden
pixels it finds on the validation split (1: all; 0: the mean of the image), and reports it to the dataset.
``--shuffled`` asks for the hidden pixels of other samples and reports nothing.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from builder.library.training import record_training
from builder.reader import Dataset, open_dataset

SQUARE = 4


def main() -> None:
    """Train, validate, report."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--checkpoint", type=Path)
    options.add_argument("--shuffled", action="store_true")
    told = options.parse_args()
    torch.manual_seed(0)
    data = open_dataset(told.dataset, fields=["image"])
    channels = data.layout("image").channels
    layers: list[nn.Module] = []
    for inputs, apart in ((channels + 1, 1), (16, 2), (16, 4)):
        layers += [nn.Conv3d(inputs, 16, 3, padding=apart, dilation=apart), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv3d(16, channels, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(told.epochs):
        for seen, hidden, image in batches(data.split("train"), epoch):
            wanted = image.roll(int(told.shuffled), 0)
            loss = ((model(seen) - wanted) ** 2 * hidden).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    missed = total = 0.0
    with torch.no_grad():
        for seen, hidden, image in batches(data.split("validation")):
            missed += float(((model(seen) - image) ** 2 * hidden).sum())
            total += float((image**2 * hidden).sum())
    score = 1 - missed / total
    print(f"share of hidden variance {score:.3f}")
    if told.checkpoint:
        torch.save(model.state_dict(), told.checkpoint)
    if not told.shuffled:
        run = {"architecture": "3 convolutions of 3 x 3 x 3", "optimizer": "Adam", "learning_rate": 5e-3}
        run |= {"loss": "squared error", "batch_size": 4, "epochs": told.epochs, "evaluated_on": "validation"}
        print(record_training(told.dataset, {**run, "metrics": {"share_of_hidden_variance": score}}).text())


def batches(samples: Dataset, epoch: int | None = None) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield what is seen (the image with zeros, and where they are), what is hidden (1), and the image, of mean 0."""
    chance = torch.Generator().manual_seed(1000 if epoch is None else epoch)
    order: Literal["sequential", "shuffled"] = "sequential" if epoch is None else "shuffled"
    for batch in DataLoader(samples.torch_batches(4, order=order, seed=1, epoch=epoch or 0), batch_size=None):
        image = nn.functional.instance_norm(batch["image"].float())
        squares = torch.rand(len(image), 1, *(-(-n // SQUARE) for n in image.shape[2:]), generator=chance) < 0.5
        hidden = nn.functional.interpolate(squares.float(), scale_factor=SQUARE)[..., *map(slice, image.shape[2:])]
        yield torch.cat([image * (1 - hidden), hidden], 1), hidden, image


if __name__ == "__main__":
    main()
