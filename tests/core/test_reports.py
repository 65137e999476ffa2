"""Reports: plain JSON data with the fields' names as keys."""

import json
from pathlib import Path

from featcache.core.errors import BadImage
from featcache.core.reports import EpochRecord, ExtractReport, TrainReport

EXTRACTED = ExtractReport(
    cache=Path("cache/ants.h5"),
    images=3,
    computed=2,
    reused=0,
    skipped=1,
    embed_dim=512,
    classes=2,
    fingerprint="5" * 64,
    seconds=0.5,
    images_per_second=4.0,
    bad_images=(BadImage("a.jpg", "damaged"),),
)
TRAINED = TrainReport(
    model=Path("runs/1/model.safetensors"),
    solver="sgd",
    epochs=1,
    best_epoch=1,
    train_accuracy=1.0,
    val_accuracy=None,
    val_loss=None,
    seconds=0.1,
    history=(EpochRecord(1, 0.1, 0.5, 1.0, None, None, 0.1),),
)


def test_a_report_is_json():
    """Paths are text, images are objects, and nothing is lost on the way."""
    fields = EXTRACTED.to_json()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert fields["cache"] == str(Path("cache/ants.h5"))
    assert fields["bad_images"] == [{"path": "a.jpg", "reason": "damaged"}]
    assert list(fields)[:3] == ["cache", "images", "computed"]


def test_the_history_is_not_part_of_the_json():
    """It goes to a table of its own."""
    fields = TRAINED.to_json()
    assert "history" not in fields
    assert fields["test_accuracy"] is None
