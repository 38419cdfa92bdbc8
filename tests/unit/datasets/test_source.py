from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ct_attn.datasets import amos, btcv, msd, pancreas_ct
from ct_attn.datasets.source import CodeTable, is_case_id, nifti_files, numbered, pair_by_stem, ranges
from ct_attn.errors import UserError

TABLE = CodeTable(organs={1: "pancreas", 2: "pancreas", 7: "left_kidney"}, ignored={6: "liver"})


def test_codes_become_those_of_the_disk_and_ignored_ones_background():
    labels = np.array([0, 1, 2, 6, 7], dtype=np.uint8).reshape(1, 1, 5)
    assert TABLE.to_disk_codes(labels, Path("a")).ravel().tolist() == [0, 1, 1, 0, 3]
    assert TABLE.labelled_organs == ("pancreas", "left_kidney")


def test_a_table_has_a_scheme_of_its_own_with_one_code_for_every_name():
    table = CodeTable(organs={9: "kidney", 4: "spleen", 5: "spleen"}, ignored={200: "liver"})
    assert table.scheme.codes == {"spleen": 1, "kidney": 2}
    assert table.labelled_organs == ("spleen", "left_kidney", "right_kidney")
    labels = np.array([0, 4, 5, 9, 200, 201], dtype=np.uint8).reshape(1, 2, 3)
    assert table.recoded(labels, table.scheme).ravel().tolist() == [0, 1, 1, 2, 0, 0]
    assert table.strangers(labels) == [201]


def test_an_unknown_code_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"0 background, 1 pancreas, 2 pancreas, 6 liver.*code 9, 11"):
        TABLE.to_disk_codes(np.array([[[9, 11, 1]]], dtype=np.uint8), Path("a"))


@pytest.mark.parametrize(
    ("organs", "ignored", "complaint"),
    [
        ({1: "liver"}, {}, "unknown organ liver"),
        ({1: "spleen"}, {1: "x"}, "each once"),
        ({0: "spleen"}, {}, "1 to 255"),
        ({1: "kidney", 2: "left_kidney"}, {}, "kidney beside left_kidney"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(organs, ignored, complaint):
    with pytest.raises(ValueError, match=complaint):
        CodeTable(organs=organs, ignored=ignored)


def test_what_public_data_sets_label():
    assert pancreas_ct.LABELS.labelled_organs == ("pancreas",)
    assert pancreas_ct.MULTI_ORGAN_LABELS.labelled_organs == ("pancreas", "spleen", "left_kidney")
    every = ("pancreas", "spleen", "left_kidney", "right_kidney")
    assert btcv.LABELS.labelled_organs == amos.LABELS.labelled_organs == every
    assert [table.labelled_organs for _, table in msd.TABLES.values()] == [("pancreas",), ("spleen",)]


def test_files_are_found_by_stem_but_for_hidden_ones(tmp_path):
    for name in ("a.nii.gz", "b.nii", "._a.nii.gz", "note.txt"):
        (tmp_path / name).touch()
    assert list(nifti_files(tmp_path)) == ["a", "b"]
    (tmp_path / "b.nii.gz").touch()
    with pytest.raises(UserError, match=r"b.nii and b.nii.gz"):
        nifti_files(tmp_path)


def test_numbers_in_names():
    files = [Path("label0002.nii.gz"), Path("LABEL0010.nii"), Path("label2.nii.gz")]
    by_number, strangers = numbered(files, r"label(\d{4})\.nii(?:\.gz)?")
    assert by_number == {2: [files[0]], 10: [files[1]]}
    assert strangers == [files[2]]


def test_ranges():
    assert ranges([7, 1, 2, 3, 9, 10]) == "1-3, 7, 9-10"
    assert ranges([]) == ""


def test_only_complete_pairs_are_cases():
    cases, notices = pair_by_stem(
        {"a": Path("i/a"), "b": Path("i/b")}, {"b": Path("l/b"), "c": Path("l/c")}, TABLE
    )
    assert [(case.case_id, case.image, case.labels[0].path) for case in cases] == [
        ("b", Path("i/b"), Path("l/b"))
    ]
    assert notices == ["scans without a label: a", "labels without a scan: c"]


@pytest.mark.parametrize(
    ("text", "fits"), [("a-1_b.c", True), (".a", False), ("a b", False), ("Müller", False)]
)
def test_case_ids(text, fits):
    assert is_case_id(text) is fits
