import subprocess
import sys

import pytest

from pipelines.cli import COMMANDS, main


def call(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["rum"], ["invalid choice: 'rum'", "did you mean run?"]),
        (["tile", "m.csv", "--image-root", "x", "--out", "o"], ["--images-root"]),
        (["validate", "x", "--frobnicate"], ["unrecognized arguments: --frobnicate"]),
        (["lineage"], ["PATH_OR_ID"]),
        (["compile", "--to", "x.yaml", "--allow-tags"], ["no .json file"]),
        (["compile", "--to", "x.json"], ["no digests", "--allow-tags"]),
        (["compile", "--pipeline", "whole-slid", "--allow-tags", "--to", "x.json"], ["did you mean whole-slide?"]),
    ],
)
def test_a_wrong_call_ends_in_one_line_and_exit_code_2(words, facts, capsys):
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(fact in error for fact in facts)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert call(command, "--help") == 0
    assert "usage: bagline" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    heavy = ["tensorflow", "keras", "apache_beam", "kfp", "openslide", "google.cloud.storage", "sklearn", "numpy"]
    heavy += ["google.cloud.aiplatform"]
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug(monkeypatch, capsys):
    import pipelines.check

    def explode(configs):
        raise KeyError("surprise")

    monkeypatch.setattr(pipelines.check, "check_all", explode)
    assert call("check") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unexpected KeyError: 'surprise'" in error
    assert call("check", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_version_names_the_code(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("bagline ")
