"""YAML as people mean it: no key twice, 1e-3 a number, and the line on which a value stands."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_FLOAT = "tag:yaml.org,2002:float"
#: YAML 1.2's numbers with an exponent, of which PyYAML (1.1) takes those without a point for text.
_EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused below: no key of ours
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


def load(text: str) -> Any:
    """What ``text`` holds. Raises ``yaml.YAMLError``, also for a key that is there twice.

    ``ValueError`` for a date that does not exist.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def dump(fields: dict[str, Any]) -> str:
    """``fields`` in their order, as text that :func:`load` reads back."""
    text: str = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def line_of(text: str, place: tuple[int | str, ...]) -> tuple[int | None, bool]:
    """The line (from 1) of the value at ``place``, as deep as ``text`` has it, and whether it has all of it.

    Parts of ``place`` that are no keys, such as the tag of a union, are passed over.
    """
    node = yaml.compose(text, Loader=_Loader)
    line: int | None = None
    whole = True
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            whole = found is not None
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line, whole
