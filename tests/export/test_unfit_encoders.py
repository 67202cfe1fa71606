"""Models that a ranker cannot be: refused in one line, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from export.__main__ import main
from tests.encoders import tiny_encoder
from tests.export.test_refusals import rewrite


def slow(root: Path) -> None:
    (root / "tokenizer.json").unlink()
    rewrite(root / "tokenizer_config.json", tokenizer_class="CTRLTokenizer")


def reframed(pair: str) -> Callable[[Path], None]:
    """Return what frames a tokenizer's pairs in another way."""

    def change(root: Path) -> None:
        path = root / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        tokenizer.save(str(path))
        rewrite(root / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")

    return change


UNFIT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "two labels": (
        "roberta",
        lambda root: rewrite(root / "config.json", id2label={"0": "no", "1": "yes"}),
        "the head has 2 labels; a ranker has 1",
    ),
    "no fast tokenizer": ("roberta", slow, "its CTRLTokenizer is no fast tokenizer"),
    "no config": (
        "xlm-roberta",
        lambda root: (root / "config.json").unlink(),
        "it has no config.json",
    ),
    "code of its own": (
        "xlm-roberta",
        lambda root: rewrite(
            root / "config.json", model_type="new", auto_map={"AutoConfig": "new.Config"}
        ),
        "is no checkpoint: config.json: ",
    ),
    "texts side by side": (
        "roberta",
        reframed("<s> $A $B </s>"),
        "the tokenizer frames the pair 'a', 'b' as ",
    ),
    "the second text first": (
        "roberta",
        reframed("<s> $B </s> $A </s>"),
        "the tokenizer frames the pair 'a', 'b' as ",
    ),
    "segments that transformers does not give": (
        "electra",
        lambda root: rewrite(
            root / "tokenizer_config.json",
            tokenizer_class="PreTrainedTokenizerFast",
            model_input_names=["input_ids", "attention_mask"],
        ),
        "is not made of the two encoded alone",
    ),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_model_that_cannot_be_served_is_refused(
    unfit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, change, message = UNFIT[unfit]
    folder = tiny_encoder(tmp_path / "model", kind)
    change(folder)
    assert main(["from-hub", str(folder), str(tmp_path / "out" / "bundle")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []
