from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from ct_attn.inference.agreement import Agreement
from ct_attn.inference.blending import CERTAIN, blended, in_axes
from ct_attn.inference.windows import overlap_voxels, plan_windows

PATCH = (8, 6, 4)


def drawn(*shape):
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def blurred(patch):
    """Three logits that depend on the voxel's surroundings and on where it lies in the window."""
    kernel = torch.linspace(-1, 1, 3 * 27).reshape(3, 1, 3, 3, 3)
    ramp = torch.linspace(0, 1, patch.shape[2]).reshape(1, 1, -1, 1, 1)
    return torch.nn.functional.conv3d(patch, kernel, padding=1) + ramp


def network(window):
    return [blurred(torch.from_numpy(window)[None, None])[0].numpy()]


def whole(slabs) -> np.ndarray:
    slabs = [replace(slab, values=slab.values.copy()) for slab in slabs]  # good until the next one
    ends = np.cumsum([0, *(slab.values.shape[3] for slab in slabs)])
    assert [slab.first for slab in slabs] == list(ends[:-1])
    return np.concatenate([slab.values for slab in slabs], axis=3)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize(
    "size", [(8, 6, 4), (19, 13, 9), (9, 7, 5), (5, 13, 9), (20, 3, 9), (20, 13, 1), (3, 2, 1), (16, 12, 31)]
)
def test_slabs_are_monais_gaussian_sliding_window_on_the_same_windows(size, overlap):
    image = drawn(*size)
    plan = plan_windows(size, PATCH, overlap_voxels(PATCH, overlap))
    found = whole(blended(network, image, plan, n_classes=3))
    expected = sliding_window_inference(
        torch.from_numpy(image)[None, None], PATCH, 1, blurred, overlap=overlap, mode="gaussian"
    )[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_windows_in_another_order_are_turned_for_the_network_and_back(order):
    image = drawn(19, 13, 9)
    plan = plan_windows(image.shape, PATCH, (4, 3, 2))
    expected = whole(blended(network, image, plan, n_classes=3))
    slabs = blended(*in_axes(order, network, image, plan), n_classes=3)
    back = [order.index(axis) + 1 for axis in range(3)]
    np.testing.assert_allclose(whole(slabs).transpose(0, *back), expected, rtol=0, atol=1e-5)


def test_a_box_of_the_image_sees_what_lies_around_it_only_through_its_windows():
    image = drawn(20, 18, 16)
    plan = plan_windows((8, 6, 9), PATCH, (4, 3, 2))
    part = np.ascontiguousarray(image[5:13, 7:13, 2:11])
    found = whole(blended(network, image, plan, n_classes=3, origin=(5, 7, 2)))
    np.testing.assert_allclose(found, whole(blended(network, part, plan, n_classes=3)), rtol=0, atol=1e-6)


def test_windows_without_a_wanted_voxel_are_not_computed_and_the_rest_is_background():
    image, wanted = drawn(8, 6, 40), np.zeros((8, 6, 40), dtype=bool)
    wanted[2:5, 2:5, 30:33] = True
    computed = []

    def watch(window):
        computed.append(window)
        return network(window)

    plan = plan_windows(image.shape, PATCH, (0, 0, 0))
    found = whole(blended(watch, image, plan, n_classes=3, wanted=wanted))
    assert len(computed) == 2  # slices 28 to 31 and 32 to 35
    assert (found[0][~wanted] == CERTAIN).all()
    assert not found[1:, ~wanted].any()
    assert found[:, wanted].std() > 0


def test_members_of_an_ensemble_count_alike():
    image = drawn(8, 6, 9)
    plan = plan_windows(image.shape, PATCH, (4, 3, 2))
    one = whole(blended(network, image, plan, n_classes=3))
    both = whole(blended(lambda w: [network(w)[0], 3 * network(w)[0]], image, plan, n_classes=3))
    np.testing.assert_allclose(both, 2 * one, rtol=1e-5, atol=1e-5)


def test_no_more_slices_are_held_than_a_window_has():
    image = drawn(8, 6, 100)
    plan = plan_windows(image.shape, PATCH, (4, 3, 2))
    assert max(slab.values.shape[3] for slab in blended(network, image, plan, n_classes=3)) <= PATCH[2]


def test_windows_that_say_the_same_agree_entirely():
    image = drawn(8, 6, 20)
    plan = plan_windows(image.shape, PATCH, (4, 3, 2))
    agreement = Agreement(2, plan.layer)
    for _ in blended(lambda w: [np.stack([0.5 - w, w - 0.5])], image, plan, n_classes=2, agreement=agreement):
        pass
    assert agreement.of_classes() == [1.0, 1.0]
