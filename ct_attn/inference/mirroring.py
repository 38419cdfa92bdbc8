"""Which mirrored copies of a window a network is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from ct_attn.labels import mirrored_codes
from ct_attn.recipe import Recipe


def mirrored_copies(recipes: Sequence[Recipe]) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """All combinations of mirrored axes, and which class each becomes when R is mirrored.

    Of the axes that the trainings of all ``recipes`` (of the same targets) mirrored: no other
    copy looks like what each network has seen.
    """
    seen = (set(recipe.training.augmentation.flip_axes) for recipe in recipes)
    axes = sorted("RAS".index(axis) for axis in set.intersection(*seen))
    recipe = recipes[0]
    mirrored = mirrored_codes(recipe.label_scheme)[: recipe.n_classes] if 0 in axes else ()
    return [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)], mirrored
