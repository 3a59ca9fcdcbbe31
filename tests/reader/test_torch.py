"""PyTorch: the same samples through DataLoader, in any process, resumed by StatefulDataLoader too."""

import copy
import multiprocessing
from typing import Any

import numpy as np
import pytest

from builder.errors import SpecError
from builder.reader import open_dataset

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

START_METHODS = ("fork", "spawn", "forkserver")


def numbers(batches: Any) -> list[int]:
    return [int(n) for batch in batches for n in batch["image"][:, 0, 0, 0, 0]]


def context(name: str) -> Any:
    return multiprocessing.get_context(name)


def test_samples_are_dicts_of_tensors(patches: Any) -> None:
    samples = open_dataset(patches.root).torch_samples(["age_years", "sex"])
    assert len(samples) == 17
    sample = samples[6]
    np.testing.assert_array_equal(sample["image"].numpy(), patches.samples[6].arrays["image"])
    assert sample["image"].dtype == torch.int16
    assert np.isnan(sample["age_years"])
    assert (sample["sex"], sample["index"]) == ("F", 6)
    for one, other in zip(samples.__getitems__([3, 6, 1]), (samples[3], samples[6], samples[1]), strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["image"], other["image"])
        assert repr(one["age_years"]) == repr(other["age_years"])
    with pytest.raises(SpecError, match="'agee'"):
        open_dataset(patches.root).torch_samples(["agee"])


def test_map_style_through_a_loader(patches: Any) -> None:
    loader = DataLoader(open_dataset(patches.root).torch_samples(["age_years", "sex"]), batch_size=5, shuffle=False)
    batches = list(loader)
    assert numbers(batches) == list(range(17))
    assert batches[0]["age_years"].tolist() == [0, 1, 2, 3, 4]
    assert batches[1]["sex"] == ["M", "F", "M", "F", "M"]


def test_volumes_of_many_shapes_one_by_one(volumes: Any) -> None:
    loader = DataLoader(open_dataset(volumes.root).torch_samples(), batch_size=2, collate_fn=list)
    shapes = [tuple(sample["image"].shape[1:]) for batch in loader for sample in batch]
    assert shapes == [sample.geometry.shape for sample in volumes.samples]


@pytest.mark.parametrize("method", START_METHODS)
def test_batches_in_order_from_worker_processes(patches: Any, method: str) -> None:
    dataset = open_dataset(patches.root)
    dataset[0]  # files are open before the fork
    expected = dataset.batches(1, order="shuffled", seed=2, epoch=1).order.tolist()
    batches = dataset.torch_batches(3, columns=["sex"], order="shuffled", seed=2)
    batches.set_epoch(1)
    workers = 2 if method == "fork" else 1  # the others import PyTorch again, for seconds
    loader = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=context(method))
    found = list(loader)
    assert numbers(found) == expected
    assert [value for batch in found for value in batch["sex"]] == ["FM"[n % 2] for n in expected]
    assert found[0]["state"] == {"seed": 2, "epoch": 1, "seen": 3, "selection": dataset.selection}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_s_state_goes_on_with_any_number_of_workers(patches: Any, workers: int) -> None:
    dataset = open_dataset(patches.root)
    expected = dataset.batches(1, order="shuffled", seed=4).order.tolist()

    def load(state: Any, workers: int, stop: int) -> list[Any]:
        batches = dataset.torch_batches(2, order="shuffled", seed=4)
        if state is not None:
            batches.load_state_dict(state)
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context("fork") if workers else None,
        )
        found = []
        for batch in loader:
            found.append(batch)
            if len(found) == stop:
                break
        return found

    for stop in (1, 4):
        first = load(None, 2 - workers, stop)
        rest = load(first[-1]["state"], workers, 100)
        assert numbers(first) + numbers(rest) == expected


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_loader(patches: Any, workers: int) -> None:
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    dataset = open_dataset(patches.root)
    expected = dataset.batches(1, order="shuffled", seed=4).order.tolist()

    def make() -> Any:
        batches = dataset.torch_batches(2, order="shuffled", seed=4)
        method = context("fork") if workers else None
        return loaders.StatefulDataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=method)

    for stop in (1, 3, 6):
        first = make()
        iterator = iter(first)
        taken = [next(iterator) for _ in range(stop)]
        state = copy.deepcopy(first.state_dict())
        del iterator
        second = make()
        second.load_state_dict(state)
        assert numbers(taken) + numbers(second) == expected


def test_tensors_share_the_buffers(patches: Any) -> None:
    from builder.reader.torch import to_tensors

    batch = next(iter(open_dataset(patches.root).batches(4)))
    tensors = to_tensors(batch, ["age_years"])
    batch["image"][0, 0, 0, 0, 0] = 99
    assert int(tensors["image"][0, 0, 0, 0, 0]) == 99
    assert tensors["index"].tolist() == [0, 1, 2, 3]


def test_a_small_network_learns(patches: Any) -> None:
    """The mask is a threshold of the image: a 3D convolution finds it through the loader."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dataset = open_dataset(patches.root)
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 1, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for epoch in range(12):
        total = 0.0
        for batch in dataset.batches(4, order="shuffled", epoch=epoch, threads=1):
            image = torch.from_numpy(batch["image"]).float().clamp(-20, 20) / 10
            target = torch.from_numpy(batch["tumor"]).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        losses.append(total)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("method", START_METHODS)
def test_set_epoch_reaches_workers_that_live_on(patches: Any, method: str) -> None:
    dataset = open_dataset(patches.root)
    batches = dataset.torch_batches(3, order="shuffled", seed=2, crop=(1, 2, 2))
    workers = 2 if method == "fork" else 1
    loader = DataLoader(
        batches, batch_size=None, num_workers=workers, persistent_workers=True, multiprocessing_context=context(method)
    )
    for epoch in (0, 1, 5):
        batches.set_epoch(epoch)
        plain = list(dataset.batches(3, order="shuffled", seed=2, epoch=epoch, crop=(1, 2, 2)))
        found = list(loader)
        assert [b["index"].tolist() for b in found] == [b.indices.tolist() for b in plain]
        assert all(np.array_equal(a["image"].numpy(), b["image"]) for a, b in zip(found, plain, strict=True))
    batches.load_state_dict(found[1]["state"])
    assert [b["index"].tolist() for b in loader] == [b["index"].tolist() for b in found[2:]]


def test_a_state_of_other_samples_is_refused(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    state = next(iter(dataset.batches(2, order="shuffled"))).state
    assert state is not None
    for other in (dataset[:4], dataset.select(np.arange(len(dataset))[::-1]), dataset.where("sex == 'F'")):
        with pytest.raises(ValueError, match="another selection"):
            other.batches(2, order="shuffled", state=state)
        with pytest.raises(ValueError, match="another selection"):
            other.torch_batches(2, order="shuffled").load_state_dict(state.to_dict())
    assert len(list(dataset.batches(2, order="shuffled", state=state))) == 8


def halved(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": sample["image"] // 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_of_samples_and_batches(patches: Any, workers: int) -> None:
    dataset = open_dataset(patches.root)
    plain = [dataset[n]["image"] // 2 for n in range(17)]
    single = dataset.torch_samples(transform=halved)
    np.testing.assert_array_equal(single[3]["image"].numpy(), plain[3])
    loader = DataLoader(single, batch_size=4, num_workers=workers)
    several = DataLoader(dataset.torch_batches(4, transform=halved), batch_size=None, num_workers=workers)
    for batches in (loader, several):
        found = np.concatenate([batch["image"].numpy() for batch in batches])
        np.testing.assert_array_equal(found, np.stack(plain))


def test_volumes_of_many_shapes_are_padded_with_air(volumes: Any) -> None:
    dataset = open_dataset(volumes.root)
    samples = dataset.torch_samples()
    (batch,) = DataLoader(samples, batch_size=len(dataset), collate_fn=samples.collate)
    largest = np.max([sample.geometry.shape for sample in volumes.samples], axis=0)
    assert len({sample.geometry.shape for sample in volumes.samples}) > 1
    for name in dataset.fields:
        assert tuple(batch[name].shape[-3:]) == tuple(largest)
        for n, sample in enumerate(volumes.samples):
            s, r, c = sample.geometry.shape
            padded = batch[name][n].numpy()
            np.testing.assert_array_equal(padded[:, :s, :r, :c], sample.arrays[name])
            beyond = np.ones(padded.shape[1:], bool)
            beyond[:s, :r, :c] = False
            assert set(padded[:, beyond].ravel().tolist()) <= {dataset.fill_value(name)}
    assert batch["shapes"].tolist() == [list(sample.geometry.shape) for sample in volumes.samples]
    assert dataset.fill_value("image") == (-1024 if dataset.layout("image").unit == "HU" else 0)


def test_what_is_shown_of_samples_and_batches_is_one_line(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    assert repr(dataset[6]).startswith("<sample 6: image int16 (1, ")
    assert repr(next(iter(dataset.batches(4)))).startswith("<batch of 4 samples: image int16 (4, 1, ")
    assert max(len(repr(dataset[6])), len(repr(dataset.get([1, 2])))) < 200
