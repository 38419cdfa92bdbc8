from __future__ import annotations

import pytest

from ct_attn.inference.mirroring import mirrored_copies
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from tests.unit.inference.models import SIDED, recipe


def mirroring(*axes, **changes):
    training = TrainingConfig(patch_size=(16, 16, 8), augmentation=AugmentationConfig(flip_axes=axes))
    return recipe(training=training, **changes)


def copies(*axes, **changes):
    return mirrored_copies([mirroring(*axes, **changes)])


@pytest.mark.parametrize(
    ("axes", "flips"),
    [
        ((), [()]),
        (("S",), [(), (2,)]),
        (("S", "A"), [(), (1,), (2,), (1, 2)]),
        (("R", "A", "S"), [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]),
    ],
)
def test_every_combination_of_the_axes_that_training_mirrored_the_plain_copy_first(axes, flips):
    assert copies(*axes, targets=SIDED)[0] == flips


def test_left_and_right_change_places_where_r_is_mirrored_and_only_there():
    assert copies("R", targets=SIDED)[1] == (0, 2, 1)
    assert copies("A", "S", targets=SIDED)[1] == ()


def test_what_has_no_side_stays():
    assert copies("R")[1] == (0, 1)


def test_of_several_models_the_axes_that_all_of_them_have_seen_mirrored():
    both = [mirroring("R", "A", targets=SIDED), mirroring("A", "S", targets=SIDED)]
    assert mirrored_copies(both) == ([(), (1,)], ())
    assert mirrored_copies([*both, mirroring("S", targets=SIDED)]) == ([()], ())
