"""The documents name what there is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from ct_attn.cli import app
from ct_attn.cli_data import prepare_app
from ct_attn.network.build import AnyNetworkConfig
from ct_attn.recipe import Recipe
from ct_attn.scan_io.options import ReadingOptions

ROOT = Path(__file__).resolve().parents[2]


def test_the_recipe_reference_is_what_the_models_say(tmp_path):
    script = ROOT / "docs" / "make_recipe_reference.py"
    subprocess.run([sys.executable, script, tmp_path / "page.md"], check=True)
    kept = ROOT / "docs" / "recipe-reference.md"
    assert kept.read_text() == (tmp_path / "page.md").read_text(), f"run: python {script.relative_to(ROOT)}"


def fields_of(model):
    for name, field in model.model_fields.items():
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields_of(kind)


NETWORK_FIELDS = {field for config in get_args(AnyNetworkConfig) for field in fields_of(config)}


@pytest.mark.parametrize("field", sorted({*fields_of(Recipe), *NETWORK_FIELDS} - {"kind"}))
def test_every_field_of_a_recipe_is_documented(field):
    text = (ROOT / "docs" / "recipe-reference.md").read_text()
    meanings = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith(f"| `{field}` |")]
    assert meanings
    assert all(len(meaning) > len("Of x. |") for meaning in meanings)


@pytest.mark.parametrize("config", get_args(AnyNetworkConfig))
def test_every_kind_of_network_is_documented(config):
    kind = config.model_fields["kind"].default
    assert f"### `kind: {kind}`" in (ROOT / "docs" / "recipe-reference.md").read_text()


OPTIONS_OF_READING = ("spacing", "prefer", "rescale", "series", "fix_spacing", "fix_tilt", "max_voxels")


@pytest.mark.parametrize("option", OPTIONS_OF_READING)
def test_every_option_of_reading_is_offered_and_documented(option):
    (command,) = [found.callback for found in app.registered_commands if found.callback.__name__ == "predict"]
    assert option in signature(command).parameters
    assert f"`--{option.replace('_', '-')}" in (ROOT / "docs" / "reading-scans.md").read_text()


def test_no_option_of_reading_is_missing_here():
    names = {field.name.removesuffix("_mm") for field in fields(ReadingOptions)}
    assert names == set(OPTIONS_OF_READING)


@pytest.mark.parametrize("recipe", sorted((ROOT / "pipelines").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_documented(recipe):
    assert f"{recipe.name}`" in (ROOT / "docs" / "recipes.md").read_text()


COMMANDS = [command.callback.__name__ for command in app.registered_commands]
COMMANDS += [group.name for group in app.registered_groups]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_in_the_readme(command):
    assert f"ct-attn {command}" in (ROOT / "README.md").read_text()


def test_the_studys_table_is_the_one_that_was_measured():
    table = (ROOT / "benchmarks" / "results" / "network_study.md").read_text()
    assert table in (ROOT / "docs" / "study.md").read_text()


@pytest.mark.parametrize(
    "name", [command.name or command.callback.__name__ for command in prepare_app.registered_commands]
)
def test_every_data_set_is_documented(name):
    assert f"ct-attn prepare {name}" in (ROOT / "docs" / "pancreas-ct.md").read_text()


def test_every_list_of_cases_is_documented():
    text = (ROOT / "docs" / "pancreas-ct.md").read_text()
    for path in (ROOT / "data_manifests").glob("*.json"):
        assert f"`{path.name}`" in text


def test_every_room_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for entry in (ROOT / "ct_attn").iterdir():
        if entry.suffix == ".py" and entry.stem != "__init__":
            assert entry.name in text, entry.name
        if entry.is_dir() and (entry / "__init__.py").is_file():
            assert f"{entry.name}/" in text, entry.name
