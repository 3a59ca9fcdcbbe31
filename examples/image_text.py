"""Train two small networks to bring a picture and its report together, as CLIP does, on a CPU.

    builder build specs/phantom-pictures.yaml --param pictures=.demo/pictures --to .demo/forms
    python examples/image_text.py .demo/forms

Prints how often its own text is the nearest to a picture of the validation split, how likely it held that text, and
reports both back. ``--shuffled`` trains on texts of other pictures and reports nothing: n texts are likely 1 / n each.
"""

import argparse
import re
import zlib

import torch
from torch import nn

from builder.library.training import record_training
from builder.reader import Batch, Dataset, open_dataset

WORDS, SIZE = 512, 16


def main() -> None:
    """Train, validate, report."""
    options = argparse.ArgumentParser()
    options.add_argument("dataset")
    options.add_argument("--column", default="text.report")
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--shuffled", action="store_true")
    told = options.parse_args()
    torch.manual_seed(0)
    data = open_dataset(told.dataset, fields=["image"])
    layers: list[nn.Module] = [nn.InstanceNorm2d(1), nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(4)]
    layers += [nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten()]
    images, texts = nn.Sequential(*layers, nn.Linear(512, SIZE)), nn.EmbeddingBag(WORDS, SIZE)
    optimiser = torch.optim.Adam([*images.parameters(), *texts.parameters()], lr=5e-3)
    for epoch in range(told.epochs):
        for batch in data.split("train").batches(8, order="shuffled", seed=1, epoch=epoch):
            said = batch.table[told.column].to_pylist()
            said = said[1:] + said[:1] if told.shuffled else said
            near = 10 * images(pictures(batch)) @ read(texts, said).T
            same = torch.tensor([[float(a == b) for b in said] for a in said])
            loss = nn.functional.cross_entropy(near, same / same.sum(1, keepdim=True))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    score, held = matched(data.split("validation"), images, texts, told.column)
    print(f"own text nearest {score:.3f}\nprobability of the own text {held:.3f}")
    if not told.shuffled:
        run = {"architecture": "2 convolutions, bag of words", "loss": "contrastive", "optimizer": "Adam"}
        run |= {"learning_rate": 5e-3, "batch_size": 8, "epochs": told.epochs, "evaluated_on": "validation"}
        print(record_training(told.dataset, {**run, "metrics": {"own_text_nearest": score, "own_text": held}}).text())


def pictures(batch: Batch) -> torch.Tensor:
    """Return the pictures of a batch."""
    return torch.from_numpy(batch["image"][:, :1, 0]).float()


def read(model: nn.Module, texts: list[str]) -> torch.Tensor:
    """Return what the words of each text are to a network that knows them by a hash, as vectors of length 1."""
    words = [
        [zlib.crc32(word.encode()) % WORDS for word in re.findall(r"\w+", (t or "").lower()) or [""]] for t in texts
    ]
    return nn.functional.normalize(torch.cat([model(torch.tensor([one])) for one in words]), dim=1)


@torch.no_grad()
def matched(samples: Dataset, images: nn.Module, texts: nn.Module, column: str) -> tuple[float, float]:
    """Return the share of pictures whose own text is the nearest one, and the mean probability of that text."""
    known = sorted(set(own := samples.table[column].to_pylist()))
    seen = torch.cat([images(pictures(batch)) for batch in samples.batches(16)])
    likely = (10 * seen @ read(texts, known).T).softmax(1)
    true = torch.tensor([known.index(text) for text in own])
    return float((likely.argmax(1) == true).float().mean()), float(likely[torch.arange(len(own)), true].mean())


if __name__ == "__main__":
    main()
