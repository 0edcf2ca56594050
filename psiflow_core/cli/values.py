"""Options on the command line: `--option NAME=VALUE`, with the value as in a YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from psiflow_core.errors import OptionError
from psiflow_core.execution.yaml_file import value_of


def options_of(texts: Iterable[str]) -> dict[str, Any]:
    """Options by name; raises `OptionError`."""
    return dict(map(_option, texts))


def _option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise OptionError(f"--option {text}: write key=value")
    try:
        return name, value_of(value)
    except yaml.YAMLError as error:
        raise OptionError(f"--option {name}: {value} is not YAML") from error
