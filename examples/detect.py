"""Train a tiny detector on padded boxes: which cell of a picture holds the middle of a box, and how large the box is.

    builder build specs/chest-detection.yaml --to .demo/boxes --param archive=FOLDER
    python examples/detect.py .demo/boxes --label opacity

Prints, for the validation split, how often the best cell of a positive picture lies in one of its boxes.
"""

import argparse

import numpy as np
import torch
from torch import nn

from builder.reader import Batch, Dataset, open_dataset

CELL = 8


def main() -> None:
    """Train, validate, print."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--label", default="opacity")
    options.add_argument("--epochs", type=int, default=40)
    arguments = options.parse_args()
    torch.manual_seed(0)
    dataset = open_dataset(arguments.dataset)
    first, last = nn.Conv2d(1, 16, CELL, stride=CELL), nn.Conv2d(16, 3, 1)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), last)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(arguments.epochs):
        for batch in dataset.split("train").batches(8, order="shuffled", epoch=epoch):
            wanted, sizes, known = targets(batch, arguments.label)
            found = model(pictures(batch))
            rare = torch.tensor(16.0)  # most cells hold no box
            loss = nn.functional.binary_cross_entropy_with_logits(found[known, 0], wanted[known], pos_weight=rare)
            inside = (wanted > 0)[:, None].expand(-1, 2, -1, -1)
            if inside.any():
                loss = loss + nn.functional.l1_loss(found[:, 1:][inside], sizes[inside])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    print(f"best cell in a box: {share_found(dataset.split('validation'), model, arguments.label):.2f}")


def pictures(batch: Batch) -> torch.Tensor:
    """Return the pictures of a batch, from 0 to 1."""
    return torch.from_numpy(batch["image"][:, :, 0].astype(np.float32) / 255)


def targets(batch: Batch, label: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the cells with the middle of a box, the sizes of boxes in cells, and which samples are known."""
    boxes, shape = batch.boxes(label, names=[label]), [n // CELL for n in batch["image"].shape[3:]]
    wanted, sizes = np.zeros((len(batch), *shape), np.float32), np.zeros((len(batch), 2, *shape), np.float32)
    for sample in range(len(batch)):
        for x0, y0, x1, y1 in boxes.corners(sample):
            row, column = int((y0 + y1) / 2 / CELL), int((x0 + x1) / 2 / CELL)
            wanted[sample, row, column], sizes[sample, :, row, column] = 1, ((y1 - y0) / CELL, (x1 - x0) / CELL)
    return torch.from_numpy(wanted), torch.from_numpy(sizes), torch.from_numpy(boxes.known)


def share_found(dataset: Dataset, model: nn.Module, label: str) -> float:
    """Return the share of the positive pictures whose best cell lies in a box."""
    found = []
    for batch in dataset.batches(16):
        boxes = batch.boxes(label, names=[label])
        best = model(pictures(batch))[:, 0].flatten(1).argmax(1).tolist()
        for sample in np.flatnonzero(boxes.counts):
            row, column = divmod(best[sample], batch["image"].shape[4] // CELL)
            place, ends = (np.array([column, row]) + 0.5) * CELL, boxes.corners(sample)
            found.append(((ends[:, :2] <= place) & (ends[:, 2:] >= place)).all(axis=1).any())
    return float(np.mean(found))


if __name__ == "__main__":
    main()
