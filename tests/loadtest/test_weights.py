"""The peers' weights are the bundle's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from loadtest.weights import WeightsError, restore_checkpoint
from service.contract.agreement import kendall_tau_b
from service.contract.bundle import Bundle
from service.contract.template import document_text
from tests.tiny import tiny_bundle

SHIPPED = Path(__file__).parents[2] / "models" / "default"


@pytest.fixture(scope="module")
def restored(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restored") / "checkpoint"
    restore_checkpoint(Bundle.open(bundle_path), folder)
    return folder


def test_restored_weights_are_the_checkpoints_but_for_the_rounding(
    bundle_path: Path, restored: Path
) -> None:
    source = bundle_path.parent / f"{bundle_path.name}-checkpoint"
    original = AutoModelForSequenceClassification.from_pretrained(source).state_dict()
    found = AutoModelForSequenceClassification.from_pretrained(restored).state_dict()
    assert found.keys() == original.keys()
    for name, weight in original.items():
        # Half a step of 127, of the largest in its row.
        assert (found[name] - weight).abs().max() <= weight.abs().max() / 253, name


def test_shipped_weights_score_as_the_checkpoint_they_were_quantised_from(tmp_path: Path) -> None:
    """The bundle's golden scores are torch's, on the checkpoint before quantisation."""
    bundle = Bundle.open(SHIPPED)
    restore_checkpoint(bundle, tmp_path / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint").eval()
    golden = bundle.golden[0]
    texts = [document_text(candidate) for candidate in golden.candidates]
    rows = tokenizer(
        [golden.query] * len(texts), texts, padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        scores = model(**rows).logits[:, 0].numpy()
    assert np.abs(scores - np.array(golden.scores)).max() < 0.06 < np.ptp(scores) / 40
    assert kendall_tau_b(scores, golden.scores) == 1


def test_bundle_without_int8_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path / "fp32", precisions=("fp32",)))
    with pytest.raises(WeightsError, match="no int8 weights"):
        restore_checkpoint(bundle, tmp_path / "restored")
