"""Train a small 3D network to find a structure, on a CPU; with ``--checkpoint FILE`` it goes on at the step it reached.

    builder phantom --pictures --patients 75 --to .demo/pictures
    builder build specs/phantom-pictures.yaml --param pictures=.demo/pictures --to .demo/forms
    python examples/segment.py .demo/forms --label shape --epochs 3

Samples have one shape, as patches have. Prints the Dice overlap on the validation split and reports it to the dataset.
``--shuffled`` trains on the masks of other samples and reports nothing.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from builder.library.training import record_training
from builder.reader import open_dataset


def main() -> None:
    """Train, validate, report."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--label", default="tumor")
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--checkpoint", type=Path)
    options.add_argument("--shuffled", action="store_true")
    told = options.parse_args()

    def prepared(batch):  # type: ignore[no-untyped-def]  # images as floats, and every structure of the label as one
        return {**batch, "image": batch["image"].float(), "mask": (batch[told.label] > 0).amax(1, True).float()}

    torch.manual_seed(0)
    data = open_dataset(told.dataset, fields=["image", told.label])
    layers: list[nn.Module] = [nn.InstanceNorm3d(data.layout("image").channels)]
    for inputs in (data.layout("image").channels, 8):
        layers += [nn.Conv3d(inputs, 8, 3, padding=1), nn.InstanceNorm3d(8, affine=True), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv3d(8, 1, 3, padding=1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    batches = data.split("train").torch_batches(4, order="shuffled", seed=1, transform=prepared)
    begin = 0
    if told.checkpoint and told.checkpoint.is_file():
        kept = torch.load(told.checkpoint, weights_only=True)
        for one, name in ((model, "model"), (optimiser, "optimiser"), (batches, "state")):
            one.load_state_dict(kept[name])
        begin = kept["state"]["epoch"]
    for epoch in range(begin, told.epochs):
        if epoch > begin:
            batches.set_epoch(epoch)
        for batch in DataLoader(batches, batch_size=None):
            mask = batch["mask"].roll(int(told.shuffled), 0)
            logits = model(batch["image"])
            loss = nn.functional.binary_cross_entropy_with_logits(logits, mask) + 1 - dice(torch.sigmoid(logits), mask)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if told.checkpoint:
                kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": batch["state"]}
                torch.save(kept, told.checkpoint)
    with torch.no_grad():
        loader = DataLoader(data.split("validation").torch_batches(4, transform=prepared), batch_size=None)
        found, masks = zip(*[((model(b["image"]) > 0).float(), b["mask"]) for b in loader], strict=True)
    score = float(dice(torch.cat(found), torch.cat(masks)))
    print(f"validation Dice {score:.3f}")
    if not told.shuffled:
        run = {"architecture": "3 convolutions of 3 x 3 x 3", "loss": "cross-entropy + Dice", "optimizer": "Adam"}
        run |= {"learning_rate": 1e-2, "batch_size": 4, "epochs": told.epochs, "evaluated_on": "validation"}
        print(record_training(told.dataset, {**run, "metrics": {"dice": score}}).text())


def dice(found: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the overlap of two masks, whose values lie from 0 to 1."""
    return (2 * (found * mask).sum() + 1) / (found.sum() + mask.sum() + 1)


if __name__ == "__main__":
    main()
