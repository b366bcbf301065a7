"""A pipeline's parameters out of those of its steps: one name, one value."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

_PLAIN = (str, int, float, bool, list, dict)


def parameters_of_steps(*components: Any, without: Collection[str] = ()) -> list[inspect.Parameter]:
    """Every parameter of the components but those `without`, each once, those without a default first."""
    found: dict[str, inspect.Parameter] = {}
    for component in components:
        for name, parameter in inspect.signature(component.python_func).parameters.items():
            if parameter.annotation in _PLAIN and name not in without:
                found.setdefault(name, parameter)
    return sorted(found.values(), key=lambda parameter: parameter.default is not inspect.Parameter.empty)
