"""nnU-Net itself checks, preprocesses and trains one tiny epoch on what is exported of a dataset of four channels."""

import os
import subprocess
from pathlib import Path

import pytest

import builder
from builder.model.canonical import canonical_json
from builder.phantom import write_sets
from builder.reader.export import export_nnunet, export_nnunet_preprocessed
from builder.run.pipeline import build
from builder.specfile import fill_parameters, load_spec
from tests.endtoend.trees import KEY, ROOT
from tests.reader.test_frameworks import PEERS

EPOCH = """
import json, os, sys
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

number, fold, ready = int(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
plans = plan_experiments([number])
if isinstance(plans, tuple):
    plans = plans[0]
plans = plans[0] if isinstance(plans, list) else plans
preprocess([number], plans_identifier="nnUNetPlans", configurations=("3d_fullres",), num_processes=(1,))
(folder,) = Path(os.environ["nnUNet_preprocessed"]).iterdir()
(folder / "splits_final.json").write_text(json.dumps([fold]))
about, stated = (json.loads((folder / name).read_text()) for name in ("dataset.json", "nnUNetPlans.json"))
assert len(about["channel_names"]) == 4
ours = next((ready / "nnUNetPlans_3d_fullres").glob("*.pkl"))
assert ours.exists()
stated["configurations"]["3d_fullres"]["patch_size"] = [16, 32, 32]
trainer = nnUNetTrainer(stated, "3d_fullres", 0, about, device=torch.device("cpu"))
trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
trainer.run_training()
assert trainer.network is not None
print("trained")
"""


@pytest.mark.skipif(PEERS not in os.environ, reason="nnU-Net needs another PyTorch: make test-peers")
def test_nnunet_trains_on_four_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_sets(tmp_path / "phantom", patients=4)
    recipe = fill_parameters(load_spec(ROOT / "specs" / "brain-tumour.yaml"), {"phantom": str(tmp_path / "phantom")})
    build(recipe, to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    export_nnunet(dataset, tmp_path / "raw", number=7, label="tumour")
    ready = export_nnunet_preprocessed(dataset, tmp_path / "ready", number=7, label="tumour", patch=(16, 32, 32))
    keys = {split: dataset.split(split).table["sample_key"].to_pylist() for split in ("train", "validation")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir(exist_ok=True)
        environment[f"nnUNet_{name}"] = str(tmp_path / name)
    environment.pop("PYTHONPATH", None)
    fold = canonical_json({"train": keys["train"], "val": keys["validation"]}).decode()
    command = [os.environ[PEERS], "-c", EPOCH, "7", fold, str(ready)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert found.stdout.rstrip().endswith("trained")
