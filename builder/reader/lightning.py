"""A DataModule for Lightning: the batches of a dataset's splits, shared by ranks and continued at checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from torch.utils.data import DataLoader

from builder.errors import MissingExtra
from builder.reader.torch import TorchBatches, Transform

try:
    from lightning import LightningDataModule
except ImportError as error:
    raise MissingExtra("lightning", "lightning") from error


class Splits(Protocol):
    """The part of ``Dataset`` that this module uses."""

    def split(self, name: str, /) -> Any: ...


class BatchesModule(LightningDataModule):  # type: ignore[misc]  # Lightning recognises data by this class
    """The splits ``train``, ``validation`` and ``test`` of a dataset as Lightning takes them.

    The order of an epoch depends on the seed and Lightning's epoch alone; its ranks share each epoch, so
    ``Trainer(use_distributed_sampler=False)`` is right on several. Samples that do not fill the last step of all ranks
    are left out of that epoch of training; in validation and test, where several ranks must take equally many steps,
    they are followed by samples from the start, which a batch's ``index`` tells. From a checkpoint within an epoch,
    training continues with the batch that follows.

    Parameters
    ----------
    dataset
        What ``open_dataset`` returned.
    batch_size
        Samples of a batch of one rank.
    columns, transform
        As in ``Dataset.torch_batches``.
    workers
        Processes that read; 0 reads with threads in the training process.
    options
        Further arguments of ``Dataset.batches`` for training, such as ``seed``, ``crop``, ``order`` (``shuffled``).
    """

    def __init__(
        self,
        dataset: Splits,
        batch_size: int,
        *,
        columns: Sequence[str] = (),
        transform: Transform | None = None,
        workers: int = 0,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.dataset, self.batch_size, self.workers = dataset, batch_size, workers
        self.columns, self.transform, self.options = columns, transform, options

    def train_dataloader(self) -> "Epochs":
        """Return the batches of ``train``, in another order every epoch."""
        return Epochs(self, self._batches("train", {"order": "shuffled", "ends": "drop", **self.options}))

    def val_dataloader(self) -> Any:
        """Return the batches of ``validation``, in the order of the index."""
        return self._evaluated("validation")

    def test_dataloader(self) -> Any:
        """Return the batches of ``test``, in the order of the index."""
        return self._evaluated("test")

    def _evaluated(self, split: str) -> Any:
        several = self.trainer is not None and self.trainer.world_size > 1
        return self.loader(self._batches(split, {"ends": "pad" if several else "keep"}))

    def _batches(self, split: str, options: Mapping[str, Any]) -> TorchBatches:
        trainer = self.trainer
        shared = {"rank": trainer.global_rank, "world": trainer.world_size} if trainer else {}
        batches: TorchBatches = self.dataset.split(split).torch_batches(
            self.batch_size, columns=self.columns, transform=self.transform, **{**shared, **options}
        )
        return batches

    def loader(self, batches: TorchBatches) -> Any:
        """Return the loader of the batches, with the processes that read them."""
        return DataLoader(batches, batch_size=None, num_workers=self.workers)


class Epochs:
    """The batches of training: every iteration is Lightning's epoch, or the rest of the one that was interrupted."""

    def __init__(self, module: BatchesModule, batches: TorchBatches) -> None:
        self._module, self._batches = module, batches
        self._seen: dict[str, int] | None = None
        self._interrupted = False
        self._length = len(batches)

    def __len__(self) -> int:
        """Return the batches of a whole epoch: Lightning counts on from the one at which it was interrupted."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if not self._interrupted:
            self._batches.set_epoch(self._module.trainer.current_epoch)
        self._interrupted = False
        for batch in self._module.loader(self._batches):
            self._seen = batch["state"]
            yield batch
        self._seen = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the batch that was given last ends; nothing between epochs."""
        return {"state": self._seen}

    def load_state_dict(self, document: Mapping[str, Any]) -> None:
        """Continue within an epoch, on any number of ranks and workers."""
        if document["state"] is not None:
            self._batches.load_state_dict(document["state"])
            self._interrupted = True
