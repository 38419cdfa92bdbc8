"""Where masks go, and what stops them."""

from __future__ import annotations

import numpy as np
import pytest

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.predict import predict
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Volume
from tests.cohorts import tiny_recipe


@pytest.fixture
def model(tmp_path):
    recipe = tiny_recipe()
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)
    save_checkpoint(
        Checkpoint(weights=network.state_dict(), recipe=recipe, provenance={}), tmp_path / "model"
    )
    return tmp_path / "model"


@pytest.fixture
def scans(tmp_path):
    grid = Grid(shape=(20, 18, 9), affine=np.diag([-6.0, 6.0, 5.0, 1.0]))
    for name in ("one", "two"):
        hu = np.random.default_rng(len(name)).integers(-100, 200, grid.shape).astype(np.int16)
        nifti.write_volume(Volume(hu=hu, grid=grid), tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def test_a_folder_gives_a_mask_named_like_each_scan(model, scans, tmp_path, silent):
    made = predict(model, scans, tmp_path / "masks", progress=silent)
    assert [mask.name for mask in made.masks] == ["one.nii.gz", "two.nii.gz"]
    assert not made.failures
    for mask in made.masks:
        assert nifti.read_mask(mask)[0].grid.is_same_as(nifti.read_grid(scans / mask.name))


def test_one_scan_goes_into_a_file_or_a_folder(model, scans, tmp_path, silent):
    one = scans / "one.nii.gz"
    as_file = predict(model, one, tmp_path / "m.nii", progress=silent).masks
    in_folder = predict(model, one, tmp_path / "folder", progress=silent).masks
    assert [path.relative_to(tmp_path).as_posix() for path in as_file + in_folder] == [
        "m.nii",
        "folder/one.nii.gz",
    ]
    assert np.array_equal(nifti.read_mask(as_file[0])[0].labels, nifti.read_mask(in_folder[0])[0].labels)


def test_many_scans_do_not_go_into_one_file(model, scans, tmp_path, silent):
    with pytest.raises(UserError, match="give a folder to -o"):
        predict(model, scans, tmp_path / "m.nii.gz", progress=silent)


def test_a_mask_that_exists_is_replaced_only_when_asked(model, scans, tmp_path, silent):
    masks = tmp_path / "masks"
    predict(model, scans, masks, progress=silent)
    with pytest.raises(UserError, match="--overwrite"):
        predict(model, scans, masks, progress=silent)
    assert len(predict(model, scans, masks, progress=silent, overwrite=True).masks) == 2


def test_a_scan_is_never_overwritten_by_its_mask(model, scans, silent):
    before = (scans / "one.nii.gz").read_bytes()
    with pytest.raises(UserError, match="choose another -o"):
        predict(model, scans / "one.nii.gz", scans, progress=silent, overwrite=True)
    assert (scans / "one.nii.gz").read_bytes() == before


def test_a_scan_that_cannot_be_read_does_not_stop_the_others(model, scans, tmp_path, silent):
    (scans / "one.nii.gz").write_bytes(b"torn")
    made = predict(model, scans, tmp_path / "masks", progress=silent)
    assert [mask.name for mask in made.masks] == ["two.nii.gz"]
    assert len(made.failures) == 1
    assert "one.nii.gz" in made.failures[0]


def test_attention_maps_go_into_a_folder_beside_the_mask(model, scans, tmp_path, silent):
    predict(model, scans / "one.nii.gz", tmp_path / "m.nii.gz", progress=silent, attention=True)
    maps = sorted((tmp_path / "m_attention").iterdir())
    assert [path.name for path in maps] == ["level1.nii.gz"]
    alpha = nifti.read_volume(maps[0])
    assert alpha.grid.is_same_as(nifti.read_grid(scans / "one.nii.gz"))
    assert 0 < alpha.hu.min() <= alpha.hu.max() < 1
