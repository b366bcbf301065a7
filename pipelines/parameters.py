"""Parameters as users give them: config files and `--set key=value`, typed and checked against a signature."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from components.records import storage
from components.records.errors import InputError


@dataclass(frozen=True)
class Parameter:
    """One parameter of a pipeline or step: its type, and its default (`required` where it has none)."""

    kind: type
    default: Any = None
    required: bool = False


Signature = Mapping[str, Parameter]

_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


def signature_of_dataclass(kind: type) -> dict[str, Parameter]:
    """The parameters of a step's dataclass."""
    signature = {}
    for field in fields(kind):
        name = field.type if isinstance(field.type, str) else field.type.__name__
        base = name.split("[")[0].split("|")[0].strip()
        default = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            default = field.default_factory()
        missing = field.default is MISSING and field.default_factory is MISSING
        signature[field.name] = Parameter({"tuple": list}.get(base) or _KINDS.get(base, str), default, missing)
    return signature


def signature_of_function(function: Callable[..., Any], *, but: tuple[str, ...] = ()) -> dict[str, Parameter]:
    """The keyword-only parameters of a step's function, but those named in `but`."""
    return {
        name: Parameter(_KINDS.get(str(parameter.annotation), str), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in but
    }


def suggest(name: str, known: Iterable[str]) -> str:
    """`, did you mean X?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def check_value(name: str, value: Any, parameter: Parameter, where: str) -> Any:
    """`value` as the parameter's type.

    Raises:
        InputError: it is of another type.
    """
    kind = parameter.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise InputError(
            f"{name} is {value!r}, which is no {kind.__name__}",
            where=where,
            mend=f"give a {kind.__name__}, such as {parameter.default!r}",
        )
    return value


def parse_assignments(assignments: Iterable[str], signature: Signature) -> dict[str, Any]:
    """`--set key=value` words as typed values; the value is read as YAML, so lists and booleans work.

    Raises:
        InputError: a word has no `=`, an unknown key (suggests the right one), or a value of another type.
    """
    import yaml

    values: dict[str, Any] = {}
    for word in assignments:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} has no value", where="--set", mend="write --set key=value")
        parameter = _known(name.strip(), signature, "--set")
        if parameter.kind is str:
            values[name.strip()] = text
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"{text!r} can't be read", where=f"--set {name}", mend="quote it") from None
        if parameter.kind is float and isinstance(value, str):
            value = _float_of(value)
        values[name.strip()] = check_value(name.strip(), value, parameter, "--set")
    return values


def _float_of(text: str) -> Any:
    try:
        return float(text)  # YAML 1.1 reads 1e-4 as text
    except ValueError:
        return text


def _known(name: str, signature: Signature, where: str) -> Parameter:
    if name not in signature:
        raise InputError(
            f"unknown parameter {name!r}", where=where, mend=suggest(name, signature) or "see README, Parameters"
        )
    return signature[name]


def check_parameters(values: Mapping[str, Any], signature: Signature, where: str) -> dict[str, Any]:
    """Every value checked against the signature; raises InputError on the first that doesn't fit."""
    checked = {}
    for name, value in values.items():
        parameter = _known(str(name), signature, where)
        if parameter.kind is float and isinstance(value, str):
            value = _float_of(value)
        checked[str(name)] = check_value(str(name), value, parameter, where)
    return checked


def check_steps(named: Iterable[str], known: Iterable[str], where: str) -> None:
    """Holds the steps that `environment.caching.tasks` names against a pipeline's; raises InputError."""
    steps = sorted(set(known))
    for step in named:
        if step not in steps:
            mend = suggest(step, steps) or f"steps are {', '.join(steps)}"
            raise InputError(f"unknown step {step!r} in environment.caching.tasks", where=where, mend=mend)


def read_config(path: str) -> dict[str, Any]:
    """A config file: `pipeline` (a name), and the mappings `parameters`, `resources`, `environment`, `dataflow`.

    Raises:
        InputError: not YAML, not a mapping, or an unknown key (suggests the right one).
    """
    import yaml

    try:
        content = yaml.safe_load(storage.read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"is not YAML ({problem})", where=path, mend="correct the line") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError("is not a mapping", where=path, mend="write `parameters:` and a key a line below it")
    sections = ("parameters", "resources", "environment", "dataflow")
    known = ("pipeline", *sections)
    for key in content:
        if key not in known:
            raise InputError(
                f"unknown key {key!r}", where=path, mend=suggest(str(key), known) or f"keys are {', '.join(known)}"
            )
    for key in sections:
        if not isinstance(content.get(key) or {}, dict):
            raise InputError(f"{key} is not a mapping", where=path, mend="write a key a line below it")
    return {
        "pipeline": content.get("pipeline", "whole-slide"),
        **{section: content.get(section) or {} for section in sections},
    }
