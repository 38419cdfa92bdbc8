"""Which recipes the experiments are trained with, and that they travel with the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ct_attn.errors import UserError
from ct_attn.reproduction.experiments import EXPERIMENTS, choose, paper_recipes, trainings_for

ROOT = Path(__file__).resolve().parents[3]


def test_every_training_has_a_recipe():
    names = {path.stem for path in paper_recipes().glob("*.yaml")}
    assert names == {experiment.name for experiment in trainings_for(EXPERIMENTS)}


def test_a_checkout_has_them_in_pipelines_and_an_installed_package_within(tmp_path):
    package = tmp_path / "site-packages" / "ct_attn"
    assert paper_recipes(package) == tmp_path / "site-packages" / "pipelines" / "paper"
    (package / "paper_recipes").mkdir(parents=True)
    assert paper_recipes(package) == package / "paper_recipes"


def test_a_built_package_holds_them(tmp_path):
    """Built from a copy with an empty package, for building leaves files in the source folder."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    (tmp_path / "ct_attn").mkdir()
    (tmp_path / "ct_attn" / "__init__.py").write_text('__version__ = "1"\n')
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    built = paper_recipes(tmp_path / "built" / "ct_attn")
    assert built.is_relative_to(tmp_path / "built" / "ct_attn")
    for recipe in (ROOT / "pipelines" / "paper").glob("*.yaml"):
        assert (built / recipe.name).read_bytes() == recipe.read_bytes()


def test_experiments_are_chosen_by_name_or_pattern():
    assert [one.name for one in choose(["ct82_scr_*"])] == ["ct82_scr_unet", "ct82_scr_attention_unet"]
    assert choose([]) == EXPERIMENTS
    with pytest.raises(UserError, match="ct83"):
        choose(["ct83_*"])
