"""Writes docs/recipe-reference.md: every field of a recipe, from the models themselves.

A field's text is the string below it in its class (``ct_attn/recipe.py`` and the configs
beside network, loss and preprocessing). Run ``python docs/make_recipe_reference.py`` after
changing one; a test compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from ct_attn.network.build import AnyNetworkConfig
from ct_attn.network.levels import SizedConfig
from ct_attn.recipe import Recipe
from ct_attn.strict_model import StrictModel

PAGE = Path(__file__).with_name("recipe-reference.md")
HEAD = """\
# Every field of a recipe

Written by `python docs/make_recipe_reference.py` from the classes that check recipes:
do not edit it. What a recipe is, and the ones that come along: [recipes.md](recipes.md).
Change a field for one run with `--set`, such as `--set training.optimizer.learning_rate=1e-3`.
"""
#: What bounds are called in JSON schema, and here.
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
#: What the configs that several networks share are called.
BASES = {"LevelsConfig": "Levels and layers of a U-Net", "GatesConfig": "Gates of an attention U-Net"}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}


def page() -> str:
    """The whole page."""
    networks = [section for config in get_args(AnyNetworkConfig) for section in network_sections(config)]
    parts = [section("recipe", Recipe)]
    for name, model in sections(Recipe):
        parts.append(section(name, model))
        if name == "preprocessing":
            parts.append("## `network`\n\nIts `kind` decides which of these fields it has.\n")
            parts += dict.fromkeys(networks)
    return HEAD + "\n" + "\n".join(parts)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The models that are fields of ``model``, with their names, and those in them."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, SizedConfig):
                yield f"{prefix}{name}", kind
                yield from sections(kind, f"{prefix}{name}.")


def network_sections(config: type[BaseModel]) -> Iterator[str]:
    """What ``config`` inherits, base first, and then its own fields."""
    inherited = []
    for base in reversed(config.__mro__):
        if not issubclass(base, SizedConfig) or base is SizedConfig:
            continue
        own = [name for name in base.__annotations__ if name in base.model_fields and name != "kind"]
        if base is not config:
            inherited.append(BASES.get(base.__name__, base.__name__))
            yield "\n".join([f"### {inherited[-1]}", "", about(base), "", *table(base, own), ""])
            continue
        also = (
            f"It has the fields under {' and '.join(f'“{name}”' for name in inherited)}" if inherited else ""
        )
        note = [f"{also}{', and:' if own else '.'}", ""] if also else []
        heading = f"### `kind: {base.model_fields['kind'].default}`"
        yield "\n".join([heading, "", about(base), "", *note, *table(base, own), *([""] if own else [])])


def section(name: str, model: type[BaseModel]) -> str:
    return "\n".join([f"## `{name}`", "", about(model), "", *table(model, list(model.model_fields)), ""])


def about(model: type[BaseModel]) -> str:
    return cleandoc(model.__doc__ or "").replace("``", "`")


def table(model: type[BaseModel], names: list[str]) -> list[str]:
    """A row per field. Raises ``ValueError`` for one without a description."""
    schema = model.model_json_schema()
    rows = [row(model, schema, name) for name in names]
    return ["| field | values | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def row(model: type[BaseModel], schema: Mapping[str, Any], name: str) -> str:
    field, about_field = model.model_fields[name], schema["properties"][name]
    if not field.description:
        raise ValueError(f"{model.__name__}.{name} has no description: write one below it")
    meaning = " ".join(field.description.split()).replace("``", "`")
    cells = [
        f"`{name}`",
        words(about_field),
        default(field.get_default(), required=field.is_required()),
        meaning,
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def default(value: Any, *, required: bool) -> str:
    """As YAML would have it, in one line."""
    if required:
        return "required"
    if isinstance(value, StrictModel):
        return ""
    return f"`{json.dumps(value)}`"


def words(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(words(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return several([words(item) for item in schema["prefixItems"]])
    return words_of_type(schema)


def words_of_type(schema: Mapping[str, Any]) -> str:
    match schema.get("type", "section"):
        case "section":
            return "a section, see below"
        case "array":
            least = f", {schema['minItems']} or more" if schema.get("minItems") else ""
            return f"list of {words(schema['items'])}{least}"
        case "object":
            return f"mapping of names, each to a {words(schema['additionalProperties'])}"
        case "null":
            return "`null`"
        case kind:
            bounds = [f"{word} {schema[bound]:g}" for bound, word in BOUNDS.items() if bound in schema]
            return " ".join([TYPES[str(kind)], ", ".join(bounds)]).strip()


def several(items: list[str]) -> str:
    same = len(set(items)) == 1
    return f"{len(items)} × {items[0]}" if same else "; ".join(items)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page(), encoding="utf-8")
