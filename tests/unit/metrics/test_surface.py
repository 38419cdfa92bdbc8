from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from ct_attn.metrics.areas import area_table_mm2, step_vectors_mm
from ct_attn.metrics.surface import (
    SurfaceDistances,
    average_symmetric_surface_distance_mm,
    bounding_box,
    hausdorff_mm,
    interpolated_hausdorff_mm,
    mean_of_directed_averages_mm,
    surface_distances,
    surface_dsc,
    voxel_surface_distances,
)

few = settings(max_examples=25, deadline=None)
masks = arrays(bool, (4, 3, 5), elements=st.booleans(), fill=st.nothing())
spacings = st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 3.0])] * 3)
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (3.0, 0.7, 1.1), (0.31, 4.2, 1.7)]


def ellipsoid(centre, radii, shape=(24, 20, 16)):
    grid = np.ogrid[tuple(map(slice, shape))]
    return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)) <= 1


def voxels(*places, shape=(7, 3, 3)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(np.transpose(places))] = True
    return mask


def distances(to_predicted, truth_areas, to_truth, predicted_areas):
    """SurfaceDistances written down by hand."""
    return SurfaceDistances(
        truth_to_predicted_mm=np.array(to_predicted, dtype=float),
        truth_weights=np.array(truth_areas, dtype=float),
        predicted_to_truth_mm=np.array(to_truth, dtype=float),
        predicted_weights=np.array(predicted_areas, dtype=float),
    )


def numbers(d):
    return np.array(
        [average_symmetric_surface_distance_mm(d), hausdorff_mm(d), hausdorff_mm(d, 100), surface_dsc(d, 1.1)]
    )


def all_distances(truth, predicted, spacing_mm):
    """By definition: every neighbourhood, cut out of the padded mask, against every other."""
    table = area_table_mm2(step_vectors_mm(spacing_mm))

    def elements(mask):
        padded = np.pad(mask, 1)
        for place in np.ndindex(*(size + 1 for size in mask.shape)):
            corners = padded[tuple(slice(at, at + 2) for at in place)].ravel()
            if corners.any() and not corners.all():
                yield place, table[int("".join("01"[int(corner)] for corner in corners), 2)]

    (at_truth, areas_truth), (at_predicted, areas_predicted) = (
        zip(*elements(mask), strict=True) for mask in (truth, predicted)
    )
    between = cdist(*(np.multiply(at, spacing_mm) for at in (at_truth, at_predicted)))
    return distances(between.min(axis=1), areas_truth, between.min(axis=0), areas_predicted)


# --- distances


def test_two_voxels_2_mm_apart():
    d = surface_distances(voxels((2, 1, 1)), voxels((4, 1, 1)), (1, 1, 1))
    # eight elements around each voxel: four face the other one, at 1 mm, four look away, at 2 mm
    assert sorted(d.truth_to_predicted_mm) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert sorted(d.predicted_to_truth_mm) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert d.truth_weights == pytest.approx([np.sqrt(3) / 8] * 8)
    assert average_symmetric_surface_distance_mm(d) == pytest.approx(1.5)
    assert hausdorff_mm(d, 100) == hausdorff_mm(d, 95) == 2
    assert [surface_dsc(d, 0.9), surface_dsc(d, 1), surface_dsc(d, 2)] == pytest.approx([0, 0.5, 1])


def test_two_voxels_2_mm_apart_by_voxels():
    d = voxel_surface_distances(voxels((2, 1, 1)), voxels((4, 1, 1)), (1, 1, 1))
    assert (d.truth_to_predicted_mm.tolist(), d.predicted_to_truth_mm.tolist()) == ([2], [2])
    assert (d.truth_weights.tolist(), d.predicted_weights.tolist()) == ([1], [1])


def test_slabs_2_mm_apart():
    """Sheets one voxel thin, far wider than thick: nearly everything is 2 mm away."""
    truth, predicted = np.zeros((2, 4, 90, 90), dtype=bool)
    truth[0], predicted[2] = True, True
    d = surface_distances(truth, predicted, (1, 0.5, 0.5))
    assert np.unique(d.truth_to_predicted_mm).tolist() == [1, 2]
    assert average_symmetric_surface_distance_mm(d) == pytest.approx(1.5, abs=0.01)


def test_box_shifted_along_the_thick_axis():
    truth, predicted = np.zeros((2, 12, 12, 12), dtype=bool)
    truth[2:10, 2:10, 2:8], predicted[2:10, 2:10, 3:9] = True, True
    d = surface_distances(truth, predicted, (1, 1, 5))
    assert hausdorff_mm(d, 100) == 5
    assert set(d.truth_to_predicted_mm) == {0, 1, 2, 3, 4, 5}
    assert surface_dsc(d, 5) == 1


@pytest.mark.parametrize("spacing_mm", [(0.3, 0.3, 0.3), (0.2, 0.2, 0.5), (0.4, 0.15, 0.2)])
def test_concentric_spheres(spacing_mm):
    shape = tuple(int(18 / step) for step in spacing_mm)
    centre = [size / 2 for size in shape]
    inner, outer = (ellipsoid(centre, [r / step for step in spacing_mm], shape) for r in (6, 8))
    d = surface_distances(inner, outer, spacing_mm)
    # elements form a layer about a voxel thick: the closest one is about half a voxel too near
    s2s_mm = average_symmetric_surface_distance_mm(d)
    assert 2 - 0.6 * max(spacing_mm) < s2s_mm <= 2
    assert hausdorff_mm(d) == pytest.approx(2, abs=max(spacing_mm))
    # a stepped sphere has some more area than a smooth one
    assert 1 < d.truth_weights.sum() / (4 * np.pi * 6**2) < 1.16
    assert [surface_dsc(d, 1.1), surface_dsc(d, 2.6)] == [0, 1]


def test_perfect_prediction():
    truth = ellipsoid((11, 10, 8), (7, 5, 4))
    d = surface_distances(truth, truth, (0.8, 0.8, 2.5))
    assert numbers(d).tolist() == [0, 0, 0, 1]
    assert surface_dsc(d, 0) == 1


@few
@given(truth=masks, predicted=masks, spacing_mm=spacings)
def test_distances_are_those_of_comparing_every_pair(truth, predicted, spacing_mm):
    assume(truth.any() and predicted.any())
    d, expected = surface_distances(truth, predicted, spacing_mm), all_distances(truth, predicted, spacing_mm)
    for name in SurfaceDistances.__slots__:
        np.testing.assert_allclose(getattr(d, name), getattr(expected, name), atol=1e-9, err_msg=name)


# Of google's surface-distance 0.1: S2S, robust Hausdorff at 95 and 100 %, surface DSC at 1.1 mm; truth area.
GOOGLE = [
    ("shifted", (1.0, 1.0, 1.0), (0.6973912199, 2, 2.828427125, 0.7844408433), 414.0182579),
    ("shifted", (0.8, 0.8, 2.5), (0.8061613292, 2.968164416, 5.06359556, 0.7015557613), 608.336585),
    ("hollow", (1.0, 1.0, 1.0), (0.4872562097, 5.385164807, 8.124038405, 0.8535751657), 414.0182579),
    ("hollow", (0.8, 0.8, 2.5), (0.5804045691, 6.184658438, 10.9658561, 0.8482790442), 608.336585),
]


@pytest.mark.parametrize(("shape", "spacing_mm", "expected", "area_mm2"), GOOGLE)
def test_numbers_are_those_of_google(shape, spacing_mm, expected, area_mm2):
    truth = ellipsoid((11, 10, 8), (7.3, 5.2, 4.1))
    hole, island = ellipsoid((11, 10, 8), (3, 3, 2)), ellipsoid((20, 4, 3), (2.2, 2.2, 2.2))
    predicted = {"shifted": ellipsoid((12, 9, 9), (6.4, 6.1, 3.2)), "hollow": truth & ~hole | island}
    d = surface_distances(truth, predicted[shape], spacing_mm)
    assert numbers(d) == pytest.approx(expected, rel=1e-9)
    assert d.truth_weights.sum() == pytest.approx(area_mm2, rel=1e-9)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own
def test_surface_dsc_is_that_of_monai_on_random_masks():
    import torch
    from monai.metrics import compute_surface_dice

    random = np.random.default_rng(3)
    for tolerance_mm in (0.9, 1.7, 2.6):
        truth, predicted = (random.random((2, 9, 8, 7)) < 0.1)[:, 2:-2, 2:-2, 2:-2]
        pair = [torch.from_numpy(np.pad(mask, 3))[None, None] for mask in (predicted, truth)]
        expected = compute_surface_dice(
            *pair, [tolerance_mm], include_background=True, spacing=(0.8, 0.7, 2.5), use_subvoxels=True
        )
        d = surface_distances(truth, predicted, (0.8, 0.7, 2.5))
        assert surface_dsc(d, tolerance_mm) == pytest.approx(expected.item(), abs=1e-5)


@few
@given(truth=masks, predicted=masks, spacing_mm=spacings)
def test_truth_and_prediction_may_swap(truth, predicted, spacing_mm):
    assume(truth.any() and predicted.any())
    there, back = (surface_distances(*pair, spacing_mm) for pair in [(truth, predicted), (predicted, truth)])
    assert numbers(there) == pytest.approx(numbers(back))


@few
@given(truth=masks, predicted=masks, spacing_mm=spacings)
def test_bounds(truth, predicted, spacing_mm):
    assume(truth.any() and predicted.any())
    s2s_mm, hd95_mm, hd_mm, share = numbers(surface_distances(truth, predicted, spacing_mm))
    assert 0 <= s2s_mm <= hd_mm <= np.linalg.norm(np.multiply(truth.shape, spacing_mm))
    assert 0 <= hd95_mm <= hd_mm
    assert 0 <= share <= 1


@few
@given(truth=masks, predicted=masks, spacing_mm=spacings, factor=st.sampled_from([0.5, 3.0]))
def test_all_lengths_grow_with_the_spacing(truth, predicted, spacing_mm, factor):
    assume(truth.any() and predicted.any())
    d = surface_distances(truth, predicted, spacing_mm)
    scaled = surface_distances(truth, predicted, tuple(factor * step for step in spacing_mm))
    assert numbers(scaled)[:3] == pytest.approx(factor * numbers(d)[:3])
    assert scaled.truth_weights == pytest.approx(factor**2 * d.truth_weights)
    assert surface_dsc(scaled, factor * 1.1) == pytest.approx(surface_dsc(d, 1.1))


@few
@given(
    truth=masks,
    predicted=masks,
    spacing_mm=spacings,
    order=st.permutations(range(3)),
    flipped=st.sampled_from([(), (0,), (1, 2), (0, 1, 2)]),
)
def test_flips_and_the_order_of_axes_change_nothing(truth, predicted, spacing_mm, order, flipped):
    assume(truth.any() and predicted.any())
    turned = [np.flip(mask, flipped).transpose(order) for mask in (truth, predicted)]
    again = surface_distances(*turned, tuple(spacing_mm[axis] for axis in order))
    assert numbers(again) == pytest.approx(numbers(surface_distances(truth, predicted, spacing_mm)))


def test_what_lies_around_changes_nothing():
    """Neither the empty rest of a scan nor where in it the structures are; edges are closed."""
    truth, predicted = np.random.default_rng(5).random((2, 6, 5, 4)) < 0.4
    inside = [np.pad(mask, ((9, 1), (0, 4), (31, 0))) for mask in (truth, predicted)]
    d, far = (surface_distances(*pair, (0.7, 0.7, 1.3)) for pair in [(truth, predicted), inside])
    for name in SurfaceDistances.__slots__:
        np.testing.assert_array_equal(getattr(d, name), getattr(far, name))


def test_axes_at_an_angle():
    """The third axis leans by 45 degrees, so that (-1, 0, 1) is the step of 1 mm straight up."""
    lean = np.sqrt(0.5)
    directions = np.array([[1, 0, lean], [0, 1, 0], [0, 0, lean]])
    spacing_mm = (1, 1, np.sqrt(2))
    pair = [np.moveaxis(voxels(place), 0, 2) for place in ((2, 1, 1), (4, 1, 1))]
    d = surface_distances(*pair, spacing_mm, directions=directions)
    # two steps along the third axis are (2, 0, 2) mm; for an upper element it is one step, for one
    # on the right side the closest one is a step back to the left
    steps_mm = [(0, 0, 1), (1, 0, 1), (1, 0, 2), (2, 0, 2)]
    expected = np.repeat(np.linalg.norm(steps_mm, axis=1), 2)
    assert np.sort(d.truth_to_predicted_mm) == pytest.approx(expected)
    # a slab of one layer: its two sides are parallelograms of base 1 mm and height 1 mm per voxel
    slab = np.ones((40, 40, 1), dtype=bool)
    d = surface_distances(slab, slab, spacing_mm, directions=directions)
    assert sorted(d.truth_weights)[800] == pytest.approx(1)
    assert d.truth_weights.sum() == pytest.approx(2 * 40 * 40, rel=0.05)


def test_rotated_axes_are_as_good_as_straight_ones():
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    pair = np.random.default_rng(6).random((2, 5, 5, 5)) < 0.3
    straight = surface_distances(*pair, (0.8, 0.9, 2.5))
    rotated = surface_distances(*pair, (0.8, 0.9, 2.5), directions=rotation)
    for name in SurfaceDistances.__slots__:
        np.testing.assert_allclose(getattr(rotated, name), getattr(straight, name), atol=1e-9)


# --- against other packages


def random_pair(random, shape=(17, 14, 11)):
    """Two random smooth-ish blobs, with a speck in one of them."""
    truth, predicted = ndimage.gaussian_filter(random.normal(size=(2, *shape)), (0, 1.6, 1.6, 1.2)) > 0.03
    predicted[tuple(random.integers(0, shape))] = True
    return truth, predicted


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of scipy, through google's package
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_numbers_are_those_of_google_on_random_masks(spacing_mm):
    import surface_distance as google

    truth, predicted = random_pair(np.random.default_rng(11))
    d, theirs = (
        f(truth, predicted, spacing_mm) for f in (surface_distances, google.compute_surface_distances)
    )
    averages = google.compute_average_surface_distance(theirs)
    weights = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
    assert average_symmetric_surface_distance_mm(d) == pytest.approx(
        np.average(averages, weights=weights), abs=1e-9
    )
    assert mean_of_directed_averages_mm(d) == pytest.approx(np.mean(averages), abs=1e-9)
    for percentile in (50, 95, 100):
        assert hausdorff_mm(d, percentile) == pytest.approx(
            google.compute_robust_hausdorff(theirs, percentile)
        )
    for tolerance_mm in (0.95, 2.05, 3.15):  # none of them a distance: google's gives rounding its way
        expected = google.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
        assert surface_dsc(d, tolerance_mm) == pytest.approx(expected, abs=1e-9)


def medpy_distances(one, other, spacing_mm):
    """MedPy's recipe: from the border voxels of ``one`` to the nearest one of ``other``, whole arrays."""
    borders = [
        mask ^ ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1)) for mask in (one, other)
    ]
    return ndimage.distance_transform_edt(~borders[1], sampling=spacing_mm)[borders[0]]


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_mean_of_directed_averages_by_voxel_is_medpys_assd(spacing_mm, seed):
    truth, predicted = random_pair(np.random.default_rng(seed))
    there = medpy_distances(truth, predicted, spacing_mm)
    back = medpy_distances(predicted, truth, spacing_mm)
    d = voxel_surface_distances(truth, predicted, spacing_mm)
    assert mean_of_directed_averages_mm(d) == pytest.approx((there.mean() + back.mean()) / 2, abs=1e-9)
    assert interpolated_hausdorff_mm(d, 100) == pytest.approx(max(there.max(), back.max()), abs=1e-9)
    # docs/metrics.md: its hd95 pools both directions, and ours is the larger of both
    pooled = np.percentile(np.hstack([there, back]), 95)
    assert interpolated_hausdorff_mm(d, 95) == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9
    )
    assert interpolated_hausdorff_mm(d, 95) >= pooled - 1e-9


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_the_voxel_convention_is_that_of_monai_on_random_masks(spacing_mm):
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    truth, predicted = random_pair(np.random.default_rng(12))
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
    options = {"include_background": True, "spacing": spacing_mm}
    d = voxel_surface_distances(truth, predicted, spacing_mm)
    s2s_mm = compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert average_symmetric_surface_distance_mm(d) == pytest.approx(s2s_mm, abs=1e-4)
    for percentile in (95, None):
        expected = compute_hausdorff_distance(*pair, percentile=percentile, **options).item()
        assert interpolated_hausdorff_mm(d, percentile or 100) == pytest.approx(expected, abs=1e-4)
    expected = compute_surface_dice(*pair, [1.3], **options).item()
    assert surface_dsc(d, 1.3) == pytest.approx(expected, abs=1e-4)


@few
@given(truth=masks, predicted=masks, spacing_mm=spacings)
def test_voxel_distances_are_those_of_comparing_every_pair(truth, predicted, spacing_mm):
    assume(truth.any() and predicted.any())

    def boundary(mask):
        padded = np.pad(mask, 1)
        for place in np.argwhere(mask) + 1:
            if not all(
                padded[tuple(place + sign * step)] for step in np.eye(3, dtype=int) for sign in (1, -1)
            ):
                yield place

    between = cdist(*(np.multiply(list(boundary(mask)), spacing_mm) for mask in (truth, predicted)))
    d = voxel_surface_distances(truth, predicted, spacing_mm)
    np.testing.assert_allclose(d.truth_to_predicted_mm, between.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(d.predicted_to_truth_mm, between.min(axis=0), atol=1e-9)


# --- numbers from distances


def test_the_mean_of_directed_averages_forgets_how_large_the_surfaces_are():
    d = distances([1, 4], [3, 1], [2], [6])
    assert mean_of_directed_averages_mm(d) == (7 / 4 + 2) / 2


def test_an_interpolated_percentile_lies_between_two_ranks():
    d = distances([0, 1, 2, 3, 4], [1] * 5, [1], [1])
    assert interpolated_hausdorff_mm(d, 95) == pytest.approx(3.8)
    assert hausdorff_mm(d, 95) == 4
    with pytest.raises(ValueError, match="percentile"):
        interpolated_hausdorff_mm(d, 0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bounding_box_is_the_smallest(order):
    mask = np.asarray(voxels((2, 1, 0), (4, 1, 2)), order=order)
    assert bounding_box(mask) == (slice(2, 5), slice(1, 2), slice(0, 3))
    assert bounding_box(mask & False) == (slice(0, 0),) * 3


def test_both_surfaces_are_pooled_by_area():
    d = distances([1, 4], [3, 1], [2], [6])
    assert average_symmetric_surface_distance_mm(d) == (1 * 3 + 4 * 1 + 2 * 6) / 10  # not (7/4 + 2) / 2
    assert surface_dsc(d, 2) == 9 / 10
    assert surface_dsc(d, 1.5) == 3 / 10


def test_percentiles_count_area_and_take_the_worse_surface():
    d = distances([5, 1, 2, 9], [15, 50, 30, 5], [3], [1])
    assert [hausdorff_mm(d, percentile) for percentile in (50, 80, 81, 95, 96, 100)] == [3, 3, 5, 5, 9, 9]
    assert hausdorff_mm(distances([3], [1], [5, 1], [50, 50]), 95) == 5


def test_rounding_moves_nothing_across_a_limit():
    just_above = 2 * np.nextafter(1.0, 2)
    assert surface_dsc(distances([just_above], [1], [2], [1]), 2) == 1
    d = distances(range(60), [0.7] * 60, [0], [1])  # 57 of 60 equal areas are 95 %, but their sum rounds down
    assert hausdorff_mm(d, 95) == 56


@pytest.mark.parametrize(
    ("truth", "predicted", "spacing_mm", "complaint"),
    [
        (voxels((2, 1, 1)), np.zeros((7, 3, 3), dtype=bool), (1, 1, 1), "no surface"),
        (np.zeros((7, 3, 3), dtype=bool), voxels((2, 1, 1)), (1, 1, 1), "no surface"),
        (voxels((2, 1, 1)), voxels((2, 1, 1)).astype(np.uint8), (1, 1, 1), "bool"),
        (np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool), (1, 1, 1), r"\[I, J, K\]"),
        (voxels((2, 1, 1)), voxels((2, 1, 1)), (1, 0, 1), "above 0 mm"),
        (voxels((2, 1, 1)), voxels((2, 1, 1)), (1, 1), "three spacings"),
    ],
)
def test_what_has_no_distance_is_refused(truth, predicted, spacing_mm, complaint):
    for measure in (surface_distances, voxel_surface_distances):
        with pytest.raises(ValueError, match=complaint):
            measure(truth, predicted, spacing_mm)


def test_limits_that_mean_nothing_are_refused():
    d = distances([1], [1], [1], [1])
    for percentile in (0, 101, float("nan")):
        with pytest.raises(ValueError, match="percentile"):
            hausdorff_mm(d, percentile)
    with pytest.raises(ValueError, match="tolerance"):
        surface_dsc(d, -1)
