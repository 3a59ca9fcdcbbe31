"""Train a tiny detector on padded boxes: which cell of a picture holds the middle of a box, and how large the box is.

    builder build specs/phantom-pictures.yaml --param pictures=.demo/pictures --to .demo/forms
    python examples/detect.py .demo/forms --label box

Prints how often the best cell of a positive picture lies in one of its boxes, on the validation split, and reports it
back to the dataset. ``--shuffled`` trains on the boxes of other pictures and reports nothing.
"""

import argparse

import torch
from torch import nn

from builder.library.training import record_training
from builder.reader import Batch, Dataset, open_dataset

CELL = 8


def main() -> None:
    """Train, validate, report."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--label", default="opacity")
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument("--shuffled", action="store_true")
    told = options.parse_args()
    torch.manual_seed(0)
    data, deep = open_dataset(told.dataset), nn.Conv2d(16, 16, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(1, 16, CELL, CELL), nn.ReLU(), deep, nn.ReLU(), nn.Conv2d(16, 3, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(told.epochs):
        for batch in data.split("train").batches(8, order="shuffled", epoch=epoch):
            wanted, sizes, known = (part.roll(int(told.shuffled), 0) for part in targets(batch, told.label))
            found = model(pictures(batch))
            weights = (1 + 15 * wanted)[known]  # most cells hold no box
            loss = nn.functional.binary_cross_entropy_with_logits(found[known, 0], wanted[known], weights)
            loss = loss + ((found[:, 1:] - sizes).abs() * wanted[:, None]).sum() / (1 + wanted.sum())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    score = share_found(data.split("validation"), model, told.label)
    print(f"best cell in a box {score:.3f}")
    if not told.shuffled:
        run = {"architecture": "3 convolutions", "loss": "cross-entropy + L1", "optimizer": "Adam"}
        run |= {"learning_rate": 1e-2, "batch_size": 8, "epochs": told.epochs, "evaluated_on": "validation"}
        print(record_training(told.dataset, {**run, "metrics": {"best_cell_in_a_box": score}}).text())


def pictures(batch: Batch) -> torch.Tensor:
    """Return the pictures of a batch, from 0 to 1."""
    return torch.from_numpy(batch["image"][:, :, 0]).float() / 255


def targets(batch: Batch, label: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the cells with the middle of a box, the sizes of boxes in cells, and which samples are known."""
    boxes, shape = batch.boxes(label, names=[label]), [n // CELL for n in batch["image"].shape[3:]]
    wanted, sizes = torch.zeros(len(batch), *shape), torch.zeros(len(batch), 2, *shape)
    for sample in range(len(batch)):
        for x0, y0, x1, y1 in boxes.corners(sample).tolist():
            row, column = int((y0 + y1) / 2 / CELL), int((x0 + x1) / 2 / CELL)
            wanted[sample, row, column], sizes[sample, :, row, column] = 1, torch.tensor([y1 - y0, x1 - x0]) / CELL
    return wanted, sizes, torch.from_numpy(boxes.known)


def share_found(dataset: Dataset, model: nn.Module, label: str) -> float:
    """Return the share of the positive pictures whose best cell lies in a box."""
    found = []
    for batch in dataset.batches(16):
        boxes, best = batch.boxes(label, names=[label]), model(pictures(batch))[:, 0].flatten(1).argmax(1).tolist()
        for sample in boxes.counts.nonzero()[0].tolist():
            y, x = ((n + 0.5) * CELL for n in divmod(best[sample], batch["image"].shape[4] // CELL))
            found.append(any(a <= x <= c and b <= y <= d for a, b, c, d in boxes.corners(sample).tolist()))
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
