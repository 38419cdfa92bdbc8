from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.datasets.pseudonyms import make_key, read_key
from ct_attn.errors import UserError

names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8)


def ids(key):
    return {row.name: (row.case_id, row.patient_id) for row in key.rows}


def test_cases_and_patients_are_numbered_in_name_order(tmp_path):
    key = make_key(tmp_path / "key.csv", {"zoe": "p2", "anna": "p9", "anna-2": "p9"})
    assert ids(key) == {
        "anna": ("case_0001", "patient_0001"),
        "anna-2": ("case_0002", "patient_0001"),
        "zoe": ("case_0003", "patient_0002"),
    }
    assert not list(tmp_path.iterdir())


def test_a_written_key_keeps_its_numbers_and_new_cases_get_the_next(tmp_path):
    path = tmp_path / "keys" / "key.csv"
    make_key(path, {"bert": "p1", "carl": "p2"}).write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().splitlines()[:2] == [
        "case_id,patient_id,name,patient", "case_0001,patient_0001,bert,p1",
    ]  # fmt: skip
    again = make_key(path, {"anna": "p2", "bert": "p1", "dora": "p3"})
    assert ids(again) == {
        "bert": ("case_0001", "patient_0001"),
        "carl": ("case_0002", "patient_0002"),
        "anna": ("case_0003", "patient_0002"),
        "dora": ("case_0004", "patient_0003"),
    }
    again.write()
    assert read_key(path) == again.rows
    before = path.stat().st_mtime_ns
    again.write()
    assert path.stat().st_mtime_ns == before


@given(st.dictionaries(names, names, max_size=6), st.dictionaries(names, names, max_size=6))
def test_names_and_patients_never_share_a_number_however_the_key_grows(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("keys") / "key.csv"
    make_key(path, first).write()
    key = make_key(path, second | first)
    assert len({row.case_id for row in key.rows}) == len(key.rows) == len(first | second)
    assert len({(row.patient, row.patient_id) for row in key.rows}) == len({row.patient for row in key.rows})
    assert len({row.patient_id for row in key.rows}) == len({row.patient for row in key.rows})
    kept = ids(make_key(path, first))
    assert {name: ids(key)[name] for name in kept} == kept


def test_a_case_that_changed_its_patient_is_refused(tmp_path):
    path = tmp_path / "key.csv"
    make_key(path, {"bert": "p1"}).write()
    with pytest.raises(UserError, match="1 of 1 cases with another") as refused:
        make_key(path, {"bert": "p2"})
    assert "bert" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "mine", "", "case_id,patient_id\na,b\n", "case_id,patient_id,name,patient\nx,patient_0001,bert,p\n",
        "case_id,patient_id,name,patient\ncase_0001,patient_0001,bert\n",
        "case_id,patient_id,name,patient\ncase_0001,patient_0001,a,p\ncase_0001,patient_0001,b,p\n",
        "case_id,patient_id,name,patient\ncase_0001,patient_0001,a,p\ncase_0002,patient_0001,b,q\n",
    ],
)  # fmt: skip
def test_a_file_with_other_content_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "key.csv"
    path.write_text(content)
    with pytest.raises(UserError, match="a key with the columns"):
        make_key(path, {"bert": "p1"})
    assert path.read_text() == content
    with pytest.raises(UserError, match="a key with the columns"):
        make_key(tmp_path, {"bert": "p1"})


def test_a_key_does_not_lie_among_the_data(tmp_path):
    key = make_key(tmp_path / "out" / "keys" / "key.csv", {"bert": "p1"})
    key.require_outside(tmp_path / "other")
    with pytest.raises(UserError, match="a key file outside"):
        key.require_outside(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    linked = make_key(tmp_path / "link" / "key.csv", {"bert": "p1"})
    with pytest.raises(UserError, match="a key file outside"):
        linked.require_outside(tmp_path / "out")
