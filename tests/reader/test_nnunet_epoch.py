"""nnU-Net itself checks, preprocesses and trains one tiny epoch on what is exported of a dataset of four channels."""

import os
import subprocess
from pathlib import Path

import pytest

import builder
from builder.phantom import write_sets
from builder.reader.export import export_nnunet, export_nnunet_preprocessed
from builder.run.pipeline import build
from builder.specfile import fill_parameters, load_spec
from tests.endtoend.trees import KEY, ROOT
from tests.reader.test_frameworks import PEERS

EPOCH = """
import json, os, shutil, sys
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.run.run_training import get_trainer_from_args

number, ready = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
plan_experiments([number])
preprocess([number], plans_identifier="nnUNetPlans", configurations=("3d_fullres",), num_processes=(1,))
os.environ["nnUNet_n_proc_DA"] = "0"  # planning wants at least one, and training makes batches here with none
(folder,) = Path(os.environ["nnUNet_preprocessed"]).iterdir()
assert len(json.loads((folder / "dataset.json").read_text())["channel_names"]) == 4
stated = json.loads((folder / "nnUNetPlans.json").read_text())
stated["configurations"]["3d_fullres"]["patch_size"] = [16, 32, 32]
(folder / "nnUNetPlans.json").write_text(json.dumps(stated))
for whose in ("nnU-Net's", "ours"):
    if whose == "ours":
        shutil.rmtree(folder / "nnUNetPlans_3d_fullres")
        shutil.copytree(ready / "nnUNetPlans_3d_fullres", folder / "nnUNetPlans_3d_fullres")
    shutil.copy(ready / "splits_final.json", folder)
    trainer = get_trainer_from_args(str(number), "3d_fullres", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.run_training()
    (fold,) = json.loads((ready / "splits_final.json").read_text())
    assert [sorted(keys) for keys in trainer.do_split()] == [sorted(fold["train"]), sorted(fold["val"])]
    print("trained on", whose)
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir(exist_ok=True)
        environment[f"nnUNet_{name}"] = str(tmp_path / name)
    environment.pop("PYTHONPATH", None)
    command = [os.environ[PEERS], "-c", EPOCH, "7", str(ready)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    told = [line for line in found.stdout.splitlines() if line.startswith("trained on")]
    assert told == ["trained on nnU-Net's", "trained on ours"]
