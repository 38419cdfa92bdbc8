"""What pyproject.toml cannot say: the paper's recipes lie in pipelines/, and travel inside the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies pipelines/paper/ into the built package, where ``ct-attn reproduce`` looks for it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the checkout's own are read
        folder = Path(self.build_lib) / "ct_attn" / "paper_recipes"
        shutil.rmtree(folder, ignore_errors=True)  # an earlier build may have left others
        self.mkpath(str(folder))
        recipes = sorted(Path("pipelines", "paper").glob("*.yaml"))
        if not recipes:
            raise FileNotFoundError("pipelines/paper has no recipes to put into the package")
        for recipe in recipes:
            self.copy_file(str(recipe), str(folder / recipe.name))


setup(cmdclass={"build_py": BuildWithRecipes})
