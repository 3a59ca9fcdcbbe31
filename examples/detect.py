"""Train a tiny detector on padded boxes: which cell of a picture holds a box's middle, and where the box ends.

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
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset")
    options.add_argument("--label", default="opacity")
    options.add_argument("--epochs", type=int, default=15)
    arguments = options.parse_args()
    torch.manual_seed(0)
    dataset = open_dataset(arguments.dataset)
    model = nn.Sequential(
        nn.Conv2d(1, 16, CELL, stride=CELL), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 5, 1)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(arguments.epochs):
        for batch in dataset.split("train").batches(16, order="shuffled", epoch=epoch):
            wanted, sizes, known = targets(batch, arguments.label)
            scores, found = torch.split(model(pictures(batch)), [1, 4], dim=1)
            inside = wanted[:, None].expand(-1, 4, -1, -1) > 0
            loss = (
                nn.functional.binary_cross_entropy_with_logits(scores[:, 0], wanted, reduction="none")[known]
            ).mean()
            loss = loss + nn.functional.l1_loss(found[inside], sizes[inside]) if inside.any() else loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    print(f"best cell in a box: {hits(dataset.split('validation'), model, arguments.label):.2f}")


def pictures(batch: Batch) -> torch.Tensor:
    """Pictures of a batch with one slice, from 0 to 1."""
    return torch.from_numpy(batch["image"][:, :, 0].astype(np.float32) / 255)


def targets(batch: Batch, label: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells with the middle of a box, the distances from the cell to its sides, and which samples are known."""
    boxes = batch.boxes(label, names=[label])
    rows, columns = (n // CELL for n in batch["image"].shape[3:])
    wanted, sizes = (
        np.zeros((len(batch), rows, columns), np.float32),
        np.zeros((len(batch), 4, rows, columns), np.float32),
    )
    for sample in range(len(batch)):
        for left, top, right, bottom in boxes.corners(sample):
            row, column = int((top + bottom) / 2) // CELL, int((left + right) / 2) // CELL
            wanted[sample, row, column] = 1
            middle = (column + 0.5) * CELL, (row + 0.5) * CELL
            sizes[sample, :, row, column] = [middle[0] - left, middle[1] - top, right - middle[0], bottom - middle[1]]
    return torch.from_numpy(wanted), torch.from_numpy(sizes), torch.from_numpy(boxes.known)


def hits(dataset: Dataset, model: nn.Module, label: str) -> float:
    """Share of the positive pictures whose best cell lies in a box."""
    found = []
    for batch in dataset.batches(16):
        with torch.no_grad():
            best = model(pictures(batch))[:, 0].flatten(1).argmax(1).numpy()
        boxes = batch.boxes(label, names=[label])
        for sample, cell in enumerate(best):
            row, column = divmod(int(cell), batch["image"].shape[4] // CELL)
            x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
            ends = boxes.corners(sample)
            if len(ends):
                found.append(bool(((ends[:, :2] <= (x, y)) & (ends[:, 2:] >= (x, y))).all(axis=1).any()))
    return float(np.mean(found)) if found else float("nan")


if __name__ == "__main__":
    main()
