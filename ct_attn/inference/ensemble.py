"""Which models can be averaged, and what their trainings allow together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ct_attn.errors import UserError
from ct_attn.inference.options import InferenceOptions
from ct_attn.model_file import ModelFile
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.recipe import Recipe

#: What models must have in common to be averaged.
_ALIKE: dict[str, Callable[[Recipe], object]] = {
    "targets": lambda recipe: recipe.targets,
    "slices": lambda recipe: recipe.slices and (recipe.slices.plane, recipe.slices.neighbours),
    "preprocessing": lambda recipe: recipe.preprocessing,
    "loss.activation": lambda recipe: recipe.loss.activation,
}


def windows_fixed(recipes: Sequence[Recipe], options: InferenceOptions) -> bool:
    """Whether windows have the training's size: asked for, or because a network depends on it."""
    return options.windows == "trained" or any(recipe.network.depends_on_window for recipe in recipes)


def coarser(recipes: Sequence[Recipe]) -> PreprocessingConfig:
    """The working grid on which organs look as small as the zoom of every training showed them."""
    recipe = recipes[0]
    augmentations = [recipe.training.augmentation for recipe in recipes]
    zoom = min(max(1.0, one.zoom[1]) if one.affine_probability else 1.0 for one in augmentations)
    # Training zooms in plane; along the slices organs may not shrink.
    in_plane = recipe.slices.order[:2] if recipe.slices else (0, 1)
    steps = enumerate(recipe.preprocessing.spacing_mm)
    coarser = tuple(step * zoom if step is not None and axis in in_plane else step for axis, step in steps)
    return recipe.preprocessing.model_copy(update={"spacing_mm": coarser})


def require_alike(models: Sequence[ModelFile], options: InferenceOptions) -> None:
    """Raise :class:`UserError` where ``models`` cannot be averaged, in the windows of the first."""
    first, *others = models
    fixed = windows_fixed([model.recipe for model in models], options)
    for other in others:
        for what, part in _ALIKE.items():
            if part(first.recipe) != part(other.recipe):
                raise UserError(
                    other.path,
                    expected=f"the {what} of {first.path}",
                    found="others",
                    remedy="average only models that predict the same from the same image",
                )
        if fixed or first.recipe.slices is not None:
            _require_patches(first, other)


def _require_patches(first: ModelFile, other: ModelFile) -> None:
    network = other.recipe.network
    axes = first.recipe.axes[: network.dims]
    patch, trained = (
        tuple(model.recipe.training.patch_size[axis] for axis in axes) for model in (first, other)
    )
    if network.depends_on_window and trained != patch:
        raise UserError(
            other.path,
            expected=f"patches of {_sides(patch)} voxels, as of {first.path}: what its network says "
            "of a voxel depends on all of the window",
            found=_sides(trained),
            remedy="name this model first, or leave one out",
        )
    try:
        network.require_size(patch)
    except ValueError as error:
        raise UserError(
            other.path,
            expected=f"a network that takes windows of the size of {first.path}'s patches",
            found=str(error),
            remedy="name the model with the other patches first, or leave one out",
        ) from error


def _sides(patch: tuple[int, ...]) -> str:
    return " x ".join(map(str, patch))
