"""What pyproject.toml cannot say: the paper's recipes lie in pipelines/, and travel inside the package."""

from __future__ import annotations

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
        self.mkpath(str(folder))
        for recipe in sorted(Path("pipelines", "paper").glob("*.yaml")):
            self.copy_file(str(recipe), str(folder / recipe.name))


setup(cmdclass={"build_py": BuildWithRecipes})
