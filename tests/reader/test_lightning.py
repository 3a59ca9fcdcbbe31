"""Lightning trains on a dataset's splits: every epoch in its own order, and on from a checkpoint within an epoch."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from builder.reader import open_dataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    from builder.reader.lightning import BatchesModule

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Seeing(lightning.LightningModule):  # type: ignore[misc]
    """Learns nothing worth telling and notes which samples it was given."""

    def __init__(self, kept: Path | None = None) -> None:
        super().__init__()
        self.scale, self.kept = torch.nn.Parameter(torch.ones(())), kept
        self.seen: list[int] = []
        self.checked: list[int] = []

    def training_step(self, batch: Any, number: int) -> Any:
        self.seen += batch["index"].tolist()
        return (self.scale * batch["image"].float().mean() - 1) ** 2

    def validation_step(self, batch: Any, number: int) -> None:
        self.checked += batch["index"].tolist()

    def on_train_epoch_end(self) -> None:
        if self.kept:
            text = json.dumps({"seen": self.seen, "checked": self.checked})
            (self.kept / f"{self.current_epoch}-{self.global_rank}.json").write_text(text)
            self.seen, self.checked = [], []

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def trained(dataset: Any, *, checkpoint: str | None = None, workers: int = 0, **options: Any) -> tuple[Seeing, Any]:
    trainer = lightning.Trainer(devices=1, **QUIET, enable_checkpointing="callbacks" in options, **options)
    model = Seeing()
    module = BatchesModule(dataset, 2, options={"seed": 5}, workers=workers)
    trainer.fit(model, datamodule=module, ckpt_path=checkpoint)
    return model, trainer


def test_epochs_are_those_of_the_reader_and_continue_within(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    train = dataset.split("train")
    orders = [train.batches(2, order="shuffled", seed=5, epoch=epoch, ends="drop") for epoch in range(3)]
    expected = [[int(n) for batch in order for n in batch.indices] for order in orders]
    assert expected[0] != expected[1]
    whole, _ = trained(dataset, max_epochs=3, workers=1)
    assert whole.seen == [n for order in expected for n in order]
    assert sorted(set(whole.checked)) == sorted(dataset.split("validation").rows.tolist())
    stop = len(expected[0]) // 2 + 2
    keeping = ModelCheckpoint(tmp_path, filename="kept", every_n_train_steps=stop, save_top_k=1)
    first, _ = trained(dataset, max_steps=stop, callbacks=[keeping])
    second, _ = trained(dataset, max_epochs=3, checkpoint=str(tmp_path / "kept.ckpt"))
    assert first.seen + second.seen == whole.seen


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_two_processes_share_every_epoch(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    train, validation = (dataset.split(name) for name in ("train", "validation"))
    two = {"devices": 2, "strategy": "ddp_fork", "use_distributed_sampler": False}  # they talk by gloo
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, **two, **QUIET)
    trainer.fit(Seeing(tmp_path), datamodule=BatchesModule(dataset, 3, options={"seed": 5}))
    for epoch in range(2):
        ranks = [json.loads((tmp_path / f"{epoch}-{rank}.json").read_text()) for rank in range(2)]
        seen = [n for rank in ranks for n in rank["seen"]]
        assert len(set(seen)) == len(seen) == len(train) // 6 * 6, "each once, the rest in another epoch"
        whole = next(iter(train.batches(6, order="shuffled", seed=5, epoch=epoch)))
        assert seen == whole.indices.tolist(), "the order of the reader"
        checked = [n for rank in ranks for n in rank["checked"]]
        assert checked == [*validation.rows, *validation.rows[: -len(validation) % 6]], "then the first again"
