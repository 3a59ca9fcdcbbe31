"""What runs at a hospital: it trains on its own dataset and sends weights and counts."""

from functools import cache

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from builder.reader import Dataset, open_dataset
from lesions import model

app = ClientApp()
LABEL = "tumor"


@app.train()
def train(message: Message, context: Context) -> Message:
    """Improve the weights on the samples of the training split."""
    inputs, lesion = voxels(checked(message, context), "train")
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    found = model.train(weights, inputs, lesion, steps=int(message.content["config"]["steps"]))
    return answer(message, {"num-examples": len(lesion)}, ArrayRecord([found]))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the weights on the samples of the validation split."""
    inputs, lesion = voxels(checked(message, context), "validation")
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    return answer(message, {"num-examples": len(lesion), "area": model.area(weights, inputs, lesion)})


def checked(message: Message, context: Context) -> str:
    """Return where the site's dataset is. The joint report must have been made of its version."""
    site, place = str(context.node_config["site"]), str(context.node_config["dataset"])
    told, here = message.content["config"][f"version {site}"], dataset(place).manifest.version
    if told != here:
        raise ValueError(f"{site}: found version {here}, expected {told} as in the joint report; send a new receipt")
    return place


@cache
def dataset(place: str) -> Dataset:
    """Open the site's dataset."""
    return open_dataset(place, fields=["image", LABEL])


@cache
def voxels(place: str, split: str) -> tuple[model.Reals, model.Reals]:
    """Return inputs and lesions of all samples of a split. Whole datasets of a hospital need batches instead."""
    read = list(model.samples(dataset(place).split(split), LABEL))
    return np.concatenate([inputs for inputs, _ in read]), np.concatenate([lesion for _, lesion in read])


def answer(message: Message, metrics: dict[str, float], arrays: ArrayRecord | None = None) -> Message:
    """Reply to a message."""
    content = RecordDict({"metrics": MetricRecord(metrics)} | ({"arrays": arrays} if arrays else {}))
    return Message(content=content, reply_to=message)
