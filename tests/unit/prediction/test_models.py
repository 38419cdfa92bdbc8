from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from ct_attn.errors import UserError
from ct_attn.labels import PAPER_SCHEME
from ct_attn.model_file import read_header, read_model_file
from ct_attn.prediction.models import read_model
from ct_attn.prediction.postprocessing import FILE_NAME, write_postprocessing
from tests.models import make_tiny_model
from tests.unit.prediction.test_calibration import learnt


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("trained"), fold=2, manifest_digest="sha256:m")


def test_facts_are_those_of_the_file_and_of_its_training(model):
    facts = read_model(model)
    file = read_model_file(model)
    _, header = read_header(model)
    assert facts.folder == model
    assert facts.used.digest == file.digest
    assert facts.used.recipe == file.recipe.name == "tiny"
    assert facts.used.recipe_digest == f"sha256:{hashlib.sha256(header['recipe'].encode()).hexdigest()}"
    assert facts.scheme == PAPER_SCHEME == file.recipe.label_scheme
    assert (facts.fold, facts.manifest_digest) == (2, "sha256:m")
    assert facts.postprocessing is None


def test_the_file_in_the_folder_is_as_good_as_the_folder(model):
    assert read_model(model / "model.safetensors") == read_model(model)


def test_a_model_that_does_not_say_where_it_was_trained_has_no_fold(tmp_path):
    facts = read_model(make_tiny_model(tmp_path))
    assert facts.fold is None
    assert facts.manifest_digest is None


def test_what_was_learnt_for_the_model_comes_with_it_unless_it_is_not_wanted(tmp_path):
    make_tiny_model(tmp_path)
    known = learnt(read_model(tmp_path).used.digest)
    write_postprocessing(known, tmp_path)
    assert read_model(tmp_path).postprocessing == known
    assert read_model(tmp_path, postprocessing=False).postprocessing is None


def test_what_was_learnt_for_another_model_is_refused_unless_it_is_not_wanted(tmp_path):
    make_tiny_model(tmp_path)
    write_postprocessing(learnt("sha256:another"), tmp_path)
    with pytest.raises(UserError, match=FILE_NAME):
        read_model(tmp_path)
    assert read_model(tmp_path, postprocessing=False).postprocessing is None


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.safetensors: expected a trained model, found no such file"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"digest": "sha256:a"},
        {"digest": "sha256:a", "recipe": "{not json"},
        {"digest": "sha256:a", "recipe": json.dumps({"name": "no targets"})},
        {"digest": "sha256:a", "recipe": "[]"},
        {"recipe": json.dumps({"name": "n", "targets": {"spleen": ["spleen"]}})},
    ],
    ids=["nothing", "no recipe", "no JSON", "no targets", "a list", "no digest"],
)
def test_a_header_that_says_too_little_is_a_damaged_file(tmp_path, header):
    save_file({"weight": np.zeros(2, dtype=np.float32)}, tmp_path / "model.safetensors", metadata=header)
    with pytest.raises(UserError, match="expected a whole model file, found a damaged one"):
        read_model(tmp_path)


def test_a_model_is_known_without_torch(model):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ct_attn.prediction.models import read_model\n"
        "read_model(Path(sys.argv[1]))\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
