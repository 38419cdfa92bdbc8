from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ct_attn import checkpoint
from ct_attn.checkpoint import (
    FILE_NAME,
    Checkpoint,
    load_checkpoint,
    model_digest,
    save_checkpoint,
    saved_digest,
)
from ct_attn.errors import UserError
from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.recipe import Recipe
from ct_attn.training_config import OptimizerConfig, TrainingConfig

RECIPE = Recipe(
    name="tiny",
    targets={"spleen": ("spleen",), "left kidney": ("left_kidney",)},
    network=AttentionUNetConfig(widths=(2, 3, 4)),
    training=TrainingConfig(patch_size=(8, 8, 8), optimizer=OptimizerConfig(learning_rate=3e-3)),
)
PROVENANCE = {"manifest": "sha256:abc", "epoch": 12, "dsc": 0.875}


@cache
def drawn(seed=0) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(RECIPE.network, in_channels=1, n_classes=3)
        network(torch.rand(2, 1, 8, 8, 8))  # so that the normalisation's statistics are no defaults
    return Checkpoint(weights=network.state_dict(), recipe=RECIPE, provenance=PROVENANCE)


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(drawn(), tmp_path)
    return tmp_path


def header_of(folder):
    with safe_open(folder / FILE_NAME, framework="pt") as opened:
        return opened.metadata()


def rewrite(folder, *, sealed, **changes):
    """Write the file anew with other words in its header; None takes one out.

    ``sealed``: with the digest that belongs to those words.
    """
    file = folder / FILE_NAME
    weights = load_file(file)
    header = {key: value for key, value in {**header_of(folder), **changes}.items() if value is not None}
    if sealed:
        header["digest"] = model_digest(weights, header)
    save_file(weights, file, metadata=header)


def test_loading_gives_back_what_was_saved(tmp_path):
    saved = drawn()
    path = save_checkpoint(saved, tmp_path / "run" / "model")
    assert path == tmp_path / "run" / "model" / FILE_NAME
    for place in (path, path.parent):
        loaded = load_checkpoint(place)
        assert loaded.recipe == RECIPE
        assert loaded.provenance == PROVENANCE
        assert set(loaded.weights) == set(saved.weights)
        for name, tensor in saved.weights.items():
            assert torch.equal(loaded.weights[name], tensor)
            assert loaded.weights[name].dtype == tensor.dtype
    assert [entry.name for entry in path.parent.iterdir()] == [FILE_NAME]


def test_the_network_is_the_trained_one_and_ready_to_predict(folder):
    network = load_checkpoint(folder).network()
    assert type(network) is AttentionUNet
    assert not network.training
    image = torch.rand(1, 1, 8, 8, 8)
    logits = network(image)
    assert logits.shape == (1, 3, 8, 8, 8)
    assert torch.equal(logits, drawn().network()(image))
    assert not torch.equal(logits, drawn(seed=1).network()(image))


def test_weights_laid_out_channels_last_are_saved_the_same(folder, tmp_path):
    network = drawn().network().to(memory_format=torch.channels_last_3d)
    weights = network.state_dict()
    assert not weights["center.0.0.weight"].is_contiguous()
    save_checkpoint(Checkpoint(weights=weights, recipe=RECIPE, provenance=PROVENANCE), tmp_path / "other")
    assert header_of(tmp_path / "other")["digest"] == header_of(folder)["digest"]


@pytest.mark.parametrize("position", [-1, -500, -2000])
def test_a_flipped_bit_in_the_weights_is_noticed(folder, position):
    file = folder / FILE_NAME
    damaged = bytearray(file.read_bytes())
    damaged[position] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(
        UserError, match=r"model\.safetensors: expected the weights and header that were saved"
    ):
        load_checkpoint(folder)


def test_a_changed_number_in_the_recipe_is_noticed(folder):
    recipe = header_of(folder)["recipe"]
    assert '"overlap":0.5' in recipe
    rewrite(folder, sealed=False, recipe=recipe.replace('"overlap":0.5', '"overlap":0.6'))
    with pytest.raises(UserError, match="digest differs"):
        load_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_cut_file_is_noticed(folder, kept):
    file = folder / FILE_NAME
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match="expected a whole model file, found a damaged one"):
        load_checkpoint(folder)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "ct_attn model 99"}])
def test_models_of_others_are_refused(tmp_path, metadata):
    save_file({"weight": torch.zeros(3)}, tmp_path / FILE_NAME, metadata=metadata)
    with pytest.raises(UserError, match="expected a file in the format 'ct_attn model 1'"):
        load_checkpoint(tmp_path)


def test_a_pickle_is_refused_and_never_opened_as_one(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    torch.save({"weights": Trap()}, tmp_path / FILE_NAME)
    with pytest.raises(UserError, match="expected a whole model file"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("place", ["", "absent", "absent.safetensors"])
def test_a_missing_model_is_named(tmp_path, place):
    with pytest.raises(
        UserError, match="expected a trained model, found no such file; give the model folder"
    ):
        load_checkpoint(tmp_path / place)


@pytest.mark.parametrize("changes", [{"recipe": None}, {"recipe": "{"}, {"recipe": '{"nome": "x"}'}])
def test_a_header_without_a_recipe_is_refused(folder, changes):
    rewrite(folder, sealed=True, **changes)
    with pytest.raises(UserError, match="expected a recipe in the header"):
        load_checkpoint(folder)


def test_a_header_without_a_digest_is_refused(folder):
    rewrite(folder, sealed=False, digest=None)
    with pytest.raises(UserError, match="digest differs"):
        load_checkpoint(folder)


def test_the_header_is_readable_without_this_package(folder):
    raw = (folder / FILE_NAME).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert json.loads(header["recipe"])["name"] == "tiny"
    assert json.loads(header["provenance"]) == PROVENANCE


def test_an_interrupted_save_keeps_the_old_model(folder, monkeypatch):
    before = (folder / FILE_NAME).read_bytes()

    def breaks_off(weights, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", breaks_off)
    with pytest.raises(UserError, match="no space left on device; make room"):
        save_checkpoint(drawn(seed=1), folder)
    assert (folder / FILE_NAME).read_bytes() == before
    assert [entry.name for entry in folder.iterdir()] == [FILE_NAME]


def test_a_saved_model_says_its_digest_and_what_is_no_model_says_none(folder, tmp_path):
    assert saved_digest(folder) == drawn().digest != drawn(seed=1).digest
    assert saved_digest(tmp_path / "absent") is None
    (folder / FILE_NAME).write_bytes(b"half")
    assert saved_digest(folder) is None


def test_saving_again_replaces_the_model(folder):
    save_checkpoint(drawn(seed=1), folder)
    loaded, expected = load_checkpoint(folder).weights, drawn(seed=1).weights
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_the_digest_covers_names_shapes_kinds_and_values_but_not_the_order():
    base = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    assert model_digest(base, {}) == model_digest({"b": torch.tensor(1), "a": torch.zeros(2, 3)}, {})
    others = [
        {"a": torch.zeros(2, 3), "c": torch.tensor(1)},
        {"a": torch.zeros(3, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(2)},
        {"a": torch.zeros(2, 3)},
    ]
    assert len({model_digest(weights, {}) for weights in [base, *others]}) == 6
