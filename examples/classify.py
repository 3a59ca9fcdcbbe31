"""Train a small network to tell the classes of a column apart, on pictures or volumes of any size, on a CPU.

    builder build specs/phantom-pictures.yaml --param pictures=.demo/pictures --to .demo/forms
    python examples/classify.py .demo/forms --column label.form

Prints the mean of the classes' accuracies on the validation split, how likely the network held the true class, and
reports both back to the dataset. ``--shuffled`` trains on the classes of other samples and reports nothing: the network
then holds each of n classes about equally likely, 1 / n, while its accuracy is a matter of luck.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from builder.library.training import record_training
from builder.reader import Dataset, open_dataset


def main() -> None:
    """Train, validate, report."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--column", default="label.abnormal")
    options.add_argument("--epochs", type=int, default=15)
    options.add_argument("--shuffled", action="store_true")
    told = options.parse_args()
    torch.manual_seed(0)
    data = open_dataset(told.dataset, fields=["image"])
    levels = data.classes[told.column]
    stated = data.class_weights(told.column).weights
    weights = torch.tensor([stated.get(level, 0.0) for level in levels], dtype=torch.float32)
    layers: list[nn.Module] = [nn.InstanceNorm3d(data.layout("image").channels)]
    for inputs, outputs in ((data.layout("image").channels, 8), (8, 16)):
        layers += [nn.Conv3d(inputs, outputs, 5, padding=2), nn.ReLU(), nn.AvgPool3d((1, 4, 4))]
    model = nn.Sequential(*layers, nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(16, len(levels)))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(told.epochs):
        for images, classes in batches(data.split("train"), told.column, shuffle=True):
            wanted = classes.roll(int(told.shuffled))
            loss = nn.functional.cross_entropy(model(images), wanted, weight=weights, ignore_index=-1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        pairs = [
            (model(images).softmax(1), classes) for images, classes in batches(data.split("validation"), told.column)
        ]
    found, true = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    known = [n for n in range(len(levels)) if (true == n).any()]
    score = float(np.mean([np.mean(found[true == n].argmax(1) == n) for n in known]))
    held = float(np.mean([found[true == n, n].mean() for n in known]))
    print(f"balanced accuracy {score:.3f}\nprobability of the true class {held:.3f}")
    if not told.shuffled:
        run = {"architecture": "2 convolutions of 5 x 5 x 5", "loss": "weighted cross-entropy", "optimizer": "Adam"}
        run |= {"learning_rate": 1e-2, "batch_size": 8, "epochs": told.epochs, "evaluated_on": "validation"}
        print(
            record_training(told.dataset, {**run, "metrics": {"balanced_accuracy": score, "true_class": held}}).text()
        )


def batches(samples: Dataset, column: str, *, shuffle: bool = False) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield images and classes; images of several sizes are padded. A sample without a class has -1."""
    torch_samples = samples.torch_samples([column], transform=lambda s: {**s, "image": s["image"].float()})
    for batch in DataLoader(torch_samples, batch_size=8, shuffle=shuffle, collate_fn=torch_samples.collate):
        yield batch["image"], batch[column]


if __name__ == "__main__":
    main()
