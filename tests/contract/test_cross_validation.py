"""The compiled cross-validation: folds unrolled, no control flow, every fold on its own split."""

import pytest

from pipelines.catalog import fold_steps, load_pipeline
from pipelines.commands.cross_validate import read_grid_file
from pipelines.compile import build_spec, render, signature_of


@pytest.fixture(scope="module")
def spec():
    return build_spec(load_pipeline("cross-validate").build(folds=3, repeats=2))


def test_the_steps_are_the_tasks(spec):
    local = build_spec(load_pipeline("cross-validate").build(folds=3, repeats=2, local_code_version="x"))
    names = {task: definition["taskInfo"]["name"] for task, definition in local["root"]["dag"]["tasks"].items()}
    assert names == {step.task: step.name for step in fold_steps(3, 2) if step.name != "embed"}
    chosen = load_pipeline("cross-validate").build(folds=3, repeats=2, steps=("embed",), local_code_version="x")
    tasks = build_spec(chosen)["root"]["dag"]["tasks"]
    assert {task: body["taskInfo"]["name"] for task, body in tasks.items()} == {
        step.task: step.name for step in fold_steps(3, 2)
    }
    assert "embedded" in tasks["train-mil-2"]["inputs"]["artifacts"]
    assert set(spec["root"]["dag"]["tasks"]) == {*names, "await-tiling", "embed-tiles"}


def test_there_is_no_control_flow_and_one_tiling(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert all("dag" not in component for component in spec["components"].values())
    assert not any(
        {"iterator", "parameterIterator", "artifactIterator", "triggerPolicy"} & set(t) for t in tasks.values()
    )
    assert [name for name in tasks if name.startswith("tile")] == ["tile-images"]


def test_every_fold_trains_and_is_evaluated_on_its_own_split(spec):
    tasks = spec["root"]["dag"]["tasks"]

    def source(task, name):
        found = tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]
        return found["producerTask"], found["outputArtifactKey"]

    folds = [step for step in fold_steps(3, 2) if step.name.startswith("train ")]
    evaluations = {step.name: step.task for step in fold_steps(3, 2)}
    for step in folds:
        fold = step.name.removeprefix("train ")
        evaluate = evaluations[f"evaluate {fold}"]
        assert source(step.task, "split_table") == source(evaluate, "split_table") == ("split-folds", fold)
        assert source(evaluate, "model") == (step.task, "model")
        assert source("summarise-folds", fold) == (evaluate, "evaluation")
        assert "train-mil" not in tasks[step.task].get("dependentTasks", [])


def test_the_parameters_are_those_of_the_whole_pipeline(spec):
    whole = signature_of(build_spec(load_pipeline("whole-slide").build()))
    mine = signature_of(spec)
    assert set(mine) - set(whole) == set()
    assert {name: p for name, p in mine.items() if name != "test_share"} == {
        name: whole[name] for name in mine if name != "test_share"
    }
    assert mine["test_share"].default == 0
    assert {"folds", "fold", "gate_metric"} & set(mine) == set()


def test_compiling_twice_gives_the_same_bytes(spec):
    assert render(spec) == render(build_spec(load_pipeline("cross-validate").build(folds=3, repeats=2)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate: 1", "is no list of parameter sets"),
        ("[]", "is no list of parameter sets"),
        ("- {a: [", "is not YAML"),
        ("- epoch: 3", "did you mean epochs?"),
    ],
)
def test_a_grid_file_that_makes_no_sense_is_refused(tmp_path, text, words):
    from components.records.errors import InputError

    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_grid_file(str(tmp_path / "grid.yaml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"), [(["--folds", "2"], "2 folds can't hold"), (["--repeats", "0"], "are 0 models")]
)
def test_the_command_refuses_a_shape_that_makes_no_sense(tmp_path, capsys, words, said):
    from pipelines.cli import main

    assert main(["cross-validate", "m.csv", "--images-root", str(tmp_path), "--out", str(tmp_path / "o"), *words]) == 2
    assert said in capsys.readouterr().err
