"""Recipes: what ships loads, and a mistake is answered with file, field and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.layerwise.recipe import LayerwiseRecipe
from training.pipeline.plan import make_plan
from training.pipeline.recipe import PipelineRecipe
from training.recipe import (
    AverageRecipe,
    DistillRecipe,
    EvaluateRecipe,
    JudgedSet,
    LabelRecipe,
    Labels,
    RecipeError,
    load_recipe,
    read_toml,
)
from training.retrieval_recipe import RetrieveRecipe
from training.teacher_recipes import CptRecipe, SftRecipe

SHIPPED = Path(__file__).parents[2] / "training" / "recipes"

DISTILL = """
name = "toy"

[[train]]
teacher = "grades"
source = { kind = "judged", path = "toy", split = "train" }

[[validation]]
path = "toy"
split = "val"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_recipe_loads() -> None:
    for path in SHIPPED.glob("*.toml"):
        if "stages" in read_toml(path):
            load_recipe(path, PipelineRecipe)
        elif path.name.startswith("evaluate"):
            load_recipe(path, EvaluateRecipe)
        elif path.name.endswith("candidates.toml"):
            load_recipe(path, RetrieveRecipe)
        elif path.name.endswith("labels.toml"):
            load_recipe(path, LabelRecipe)
        elif path.name.endswith("cpt.toml"):
            load_recipe(path, CptRecipe)
        elif path.name.startswith("layerwise-student"):
            load_recipe(path, LayerwiseRecipe)
        elif "checkpoints" in read_toml(path):
            load_recipe(path, AverageRecipe)
        elif path.name.endswith("sft.toml"):
            load_recipe(path, SftRecipe)
        else:
            load_recipe(path, DistillRecipe)


def test_the_papers_teacher_is_trained_as_the_paper_says() -> None:
    teacher = load_recipe(SHIPPED / "paper-sft.toml", SftRecipe)
    before = load_recipe(SHIPPED / "paper-cpt.toml", CptRecipe)
    assert (teacher.tau, teacher.model.max_length) == (0.1, 256)
    assert before.model.base == "mistralai/Mistral-7B-v0.1"
    assert teacher.model.base == f"runs/{before.name}/checkpoint"


def test_the_papers_student_is_distilled_as_the_paper_says() -> None:
    student = load_recipe(SHIPPED / "paper-distill.toml", DistillRecipe)
    labels = load_recipe(SHIPPED / "paper-labels.toml", LabelRecipe)
    assert (student.loss, student.beta, student.student.max_length) == ("hybrid", 0.4, 256)
    assert student.student.base == "bert-base-multilingual-cased"
    assert len(student.student.layers or ()) == 6
    assert student.train[0].source == Labels(path=Path("runs") / labels.name)
    assert labels.teacher == "runs/paper-sft/checkpoint"


def test_a_packed_row_has_to_hold_a_whole_pair(tmp_path: Path) -> None:
    files = '{ kind = "files", paths = ["a.jsonl"] }'
    text = f'name = "a"\nsteps = 1\nrow_tokens = 64\ntrain = {files}\nvalidation = {files}\n'
    with pytest.raises(RecipeError, match=r"row_tokens 64 is under model\.max_length 128"):
        load_recipe(write(tmp_path, text + '[model]\nbase = "b"\nmax_length = 128\n'), CptRecipe)


def overlap(one: JudgedSet, other: JudgedSet) -> bool:
    """Tell whether a query may be in both."""
    pairs = ((one.path, other.path), (one.split, other.split), (one.part, other.part))
    return all(mine == yours or None in (mine, yours) for mine, yours in pairs)


def test_the_shipped_student_is_trained_on_the_labels_that_ship() -> None:
    labels = load_recipe(SHIPPED / "default-labels.toml", LabelRecipe)
    general = load_recipe(SHIPPED / "default-general.toml", DistillRecipe)
    graded = load_recipe(SHIPPED / "default-graded.toml", DistillRecipe)
    mean = load_recipe(SHIPPED / "default.toml", AverageRecipe)
    sources = [part.source for part in general.train if isinstance(part.source, Labels)]
    assert [source.path for source in sources] == [Path("runs") / labels.name]
    assert graded.student.base == f"runs/{general.name}/checkpoint"
    parts = [str(part.path) for part in mean.checkpoints]
    seeds = [f"runs/{graded.name}-{seed}/checkpoint" for seed in (2, 3)]
    assert parts == [*seeds, f"runs/{general.name}/checkpoint"]


def test_the_pipeline_of_the_shipped_model_runs_its_recipes() -> None:
    recipe = load_recipe(SHIPPED / "shipped.toml", PipelineRecipe)
    plan = make_plan(recipe, SHIPPED / "shipped.toml", folder=Path("runs/shipped"))
    graded = "default-graded.toml"
    students = {"general": "default-general.toml", "graded-2": graded, "graded-3": graded}
    mean = load_recipe(SHIPPED / "default.toml", AverageRecipe)
    for step in plan:
        if step.name in students:
            alone = load_recipe(SHIPPED / students[step.name], DistillRecipe)
            whole = DistillRecipe.model_validate(step.fields)
            same = {"name": alone.name, "train": alone.train, "student": alone.student}
            assert whole.model_copy(update={**same, "seed": alone.seed}) == alone
            assert [part.teacher for part in whole.train] == [part.teacher for part in alone.train]
            assert step.name in ("general", f"graded-{whole.seed}")
        if step.name == "student":
            made = AverageRecipe.model_validate(step.fields)
            assert [part.weight for part in made.checkpoints] == [
                part.weight for part in mean.checkpoints
            ]


def test_what_the_shipped_student_is_judged_on_it_was_not_trained_on() -> None:
    labels = load_recipe(SHIPPED / "default-labels.toml", LabelRecipe)
    recipe = load_recipe(SHIPPED / "default-graded.toml", DistillRecipe)
    mean = load_recipe(SHIPPED / "default.toml", AverageRecipe)
    graded = [part.source for part in recipe.train if isinstance(part.source, JudgedSet)]
    scored = [source for source in labels.sources if isinstance(source, JudgedSet)]
    judged = load_recipe(SHIPPED / "evaluate.toml", EvaluateRecipe).sets
    chosen_by = load_recipe(SHIPPED / "evaluate-development.toml", EvaluateRecipe).sets
    for part in (*judged, *chosen_by, *recipe.validation, *mean.validation):
        assert isinstance(part, JudgedSet)
        assert not any(overlap(part, source) for source in graded)
    for part in judged:
        assert isinstance(part, JudgedSet)
        assert not any(overlap(part, source) for source in scored)


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, DISTILL), DistillRecipe)
    assert recipe.beta == 0.4
    assert (recipe.student.max_length, recipe.student.max_query_length) == (256, 64)


MISTAKES = {
    "unknown field": ('name = "toy"', 'name = "toy"\nbatch_size = 8', "batch_size", "Extra"),
    "unknown inner field": ('split = "val"', 'splitt = "val"', "validation.0.splitt", "'val'"),
    "wrong type": ('name = "toy"', 'name = "toy"\nepochs = "many"', "epochs", "'many'"),
    "out of range": ('name = "toy"', 'name = "toy"\nbeta = -1', "beta", "-1"),
    "not a number": ('name = "toy"', 'name = "toy"\nbeta = nan', "beta", "nan"),
    "negative seed": ('name = "toy"', 'name = "toy"\nseed = -1', "seed", "-1"),
    "endless rate": (
        "[[validation]]",
        "[optimiser]\nlearning_rate = inf\n[[validation]]",
        "optimiser.learning_rate",
        "inf",
    ),
    "name that is a path": ('name = "toy"', 'name = "../toy"', "name", "'../toy'"),
    "missing field": ('name = "toy"', "", "name", "required"),
    "unknown source": ('kind = "judged"', 'kind = "clicks"', "train.0.source", "clicks"),
    "unknown teacher": ('teacher = "grades"', 'teacher = "gpt"', "train.0.teacher", "'gpt'"),
    "labels of a judged set": (
        'teacher = "grades"',
        'teacher = "labels"',
        "train.0",
        'needs a source of kind "labels"',
    ),
    "grades of retrieved documents": (
        '{ kind = "judged", path = "toy", split = "train" }',
        '{ kind = "retrieved", path = "runs/toy" }',
        "train.0",
        "carry no grades",
    ),
    "query that fills the pair": (
        "[[validation]]",
        "[student]\nmax_length = 67\n[[validation]]",
        "student",
        "max_query_length 64",
    ),
    "layer kept twice": (
        "[[validation]]",
        "[student]\nlayers = [0, 0]\n[[validation]]",
        "student",
        "names a layer twice",
    ),
    "no TOML": ('name = "toy"', "name: toy", "not a TOML file", "line 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_and_field(mistake: str, tmp_path: Path) -> None:
    old, new, field, detail = MISTAKES[mistake]
    assert old in DISTILL
    path = write(tmp_path, DISTILL.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, DistillRecipe)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert f"{field}:" in message
    assert detail in message


@pytest.mark.parametrize(
    ("old", "new", "ending"),
    [
        ('name = "toy"', "", "name: Field required"),  # and not the whole recipe
        ('name = "toy"', f'name = "{"x " * 200}"', f", got '{'x ' * 39}x"),
    ],
    ids=["table", "long"],
)
def test_a_mistake_is_told_in_a_short_line(old: str, new: str, ending: str, tmp_path: Path) -> None:
    path = write(tmp_path, DISTILL.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, DistillRecipe)
    assert str(caught.value).endswith(ending)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.toml: No such file"):
        load_recipe(tmp_path / "absent.toml", DistillRecipe)


def test_bytes_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(RecipeError, match=r"recipe\.toml: not a TOML file"):
        load_recipe(path, DistillRecipe)


@pytest.mark.parametrize("section", ["train", "validation"])
def test_a_recipe_needs_something_to_train_and_to_validate_on(section: str, tmp_path: Path) -> None:
    other = "validation" if section == "train" else "train"
    kept = DISTILL.split("[[")
    text = kept[0] + "".join(f"[[{part}" for part in kept[1:] if part.startswith(other))
    with pytest.raises(RecipeError, match=rf"{section}: "):
        load_recipe(write(tmp_path, text), DistillRecipe)
    with pytest.raises(RecipeError, match=rf"{section}: "):
        load_recipe(write(tmp_path, f"{section} = []\n{text}"), DistillRecipe)


def test_the_minimal_recipe_needs_one_set() -> None:
    recipe = load_recipe(SHIPPED / "minimal.toml", DistillRecipe)
    sources = [*(part.source for part in recipe.train), *recipe.validation]
    assert sources == [
        JudgedSet(path="my_set", split="train"),
        JudgedSet(path="my_set", split="val"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sets = ["x"]', "sets.0"),
        ('[[sets]]\nkind = "x"', "kind is judged (the default), examples or published"),
        (
            '[[sets]]\nkind = "published"\npath = "x"\ndataset = "x"',
            "dataset: Input should be 'trec'",
        ),
        ('gain = "cubic"\n[[sets]]\npath = "x"', "gain: Input should be 'linear' or 'exponential'"),
    ],
)
def test_sets_of_unknown_kinds_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sets.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, EvaluateRecipe)
    assert message in str(caught.value)
