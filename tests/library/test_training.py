"""What a training run may report."""

import pytest

from builder.errors import PrivacyError, SpecError
from builder.library.training import TrainingRun, record_training

SIX = {
    "architecture": "U-Net", "loss": "Dice", "optimizer": "Adam", "learning_rate": 1e-3, "batch_size": 4, "epochs": 50,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({k: v for k, v in SIX.items() if k not in ("loss", "epochs")}, "loss: found nothing.*epochs: found nothing"),
        ({**SIX, "learning_rate": 0.0}, "learning_rate: found 0.0, expected greater than 0"),
        ({**SIX, "learning_rate": float("inf")}, "learning_rate: found inf, expected a finite number"),
        ({**SIX, "batch_size": 0}, "batch_size: found 0"),
        ({**SIX, "metrics": {"dice": float("nan")}}, "metrics: found dice that is no finite number"),
        ({**SIX, "code": "my machine"}, "code: found 'my machine'"),
        ({**SIX, "momentum": 0.9}, "momentum"),
    ],
)
def test_faults_are_named_all_at_once(tmp_path, values, message):
    with pytest.raises(SpecError, match=message):
        record_training(str(tmp_path), values)


@pytest.mark.parametrize("text", ["net for PATIENT^JANE", "of 2020-01-31", "me@example.org"])
def test_texts_that_look_like_identifiers_are_refused(tmp_path, text):
    with pytest.raises(PrivacyError) as caught:
        record_training(str(tmp_path), {**SIX, "architecture": text})
    assert text not in str(caught.value)


def test_a_run_in_one_line():
    run = TrainingRun(**SIX, metrics={"dice": 0.81234567, "auc": 0.9}, evaluated_on="test")
    assert run.sentence() == (
        "U-Net: loss Dice, optimizer Adam, learning rate 0.001, batch size 4, epochs 50; auc 0.9, dice 0.812346 on test"
    )
