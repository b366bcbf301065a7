import pytest

from components.records.errors import InputError
from pipelines.parameters import Parameter, check_parameters, parse_assignments, read_config, signature_of_dataclass

SIGNATURE = {
    "seed": Parameter(int, 0),
    "learning_rate": Parameter(float, 1e-3),
    "augment": Parameter(bool, True),
    "head": Parameter(str, "gated_attention"),
    "beam_options": Parameter(list, []),
}


def test_values_take_the_type_of_their_parameter():
    words = ["seed=7", "learning_rate=1e-4", "augment=false", "head=mean_pooling", "beam_options=[a, b]"]
    assert parse_assignments(words, SIGNATURE) == {
        "seed": 7,
        "learning_rate": 1e-4,
        "augment": False,
        "head": "mean_pooling",
        "beam_options": ["a", "b"],
    }


def test_an_integer_serves_as_float_and_a_whole_float_as_integer():
    assert check_parameters({"learning_rate": 1, "seed": 3.0}, SIGNATURE, "x") == {"learning_rate": 1.0, "seed": 3}


@pytest.mark.parametrize(
    ("word", "facts"),
    [
        ("sed=1", ["unknown parameter 'sed'", "did you mean seed?"]),
        ("seed", ["'seed' has no value", "--set key=value"]),
        ("seed=many", ["seed is 'many'", "no int"]),
        ("seed=true", ["seed is True", "no int"]),
        ("augment=1", ["augment is 1", "no bool"]),
        ("seed=[1", ["can't be read"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(word, facts):
    with pytest.raises(InputError) as caught:
        parse_assignments([word], SIGNATURE)
    assert all(fact in str(caught.value) for fact in facts)


def test_a_key_with_a_typo_in_a_config_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("paramters:\n  seed: 1\n")
    with pytest.raises(InputError, match="unknown key 'paramters'; did you mean parameters"):
        read_config(str(path))


@pytest.mark.parametrize(
    ("content", "fact"),
    [("a: [", "is not YAML"), ("- 1", "is not a mapping"), ("parameters: 3", "parameters is not a mapping")],
)
def test_a_config_of_another_shape_is_refused(tmp_path, content, fact):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=fact):
        read_config(str(path))


def test_a_dataclass_gives_its_signature():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Settings:
        folder: str
        seed: int = 0
        rate: float = 0.5
        names: tuple[str, ...] = ()

    signature = signature_of_dataclass(Settings)
    assert signature["folder"].required
    assert not signature["seed"].required
    assert {name: parameter.kind for name, parameter in signature.items()} == {
        "folder": str,
        "seed": int,
        "rate": float,
        "names": list,
    }
