from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.scan_io.identity import MIN_TOKEN, Identity, read_identity, repeats
from tests.unit.scan_io.dicom_files import FIVE, write_series

MUELLER = Identity(
    texts=("Müller^Hans-Jürgen", "PAT-0471-XQ", "ACC31"), birth_dates=(date(1950, 1, 3),)
)  # fmt: skip

letters = st.text("abcdefghijklmnopqrstuvwxyz", min_size=MIN_TOKEN, max_size=9)
separators = st.sampled_from(["_", "-", ".", " ", "^", "__"])


@pytest.mark.parametrize(
    "name",
    [
        *("MUELLER_HANS_1950", "muller", "Müller", "Mueller", "MÜLLER", "MUELLERHANS", "ctMueller01"),
        *("ct-hans", "HansM", "hans.jurgen", "Juergen2", "471", "0471", "scan_0471", "PAT0471XQ"),
        *("x-pat0471xq-y", "acc31", "ACC-31", "1950-01-03", "19500103", "03011950", "01.03.1950"),
        *("3.1.1950", "ct_3_1_50", "030150", "a19500103b", "9919500103"),
    ],
)
def test_a_name_that_repeats_a_part_of_an_identity_is_found(name):
    assert repeats(name, MUELLER)


@pytest.mark.parametrize(
    "name",
    ["case_0001", "scan_17", "CT", "1950", "abdomen_1950", "XQ", "30150", "3150", "million", "johansen",
     "20190823", "1.2.826.0.1.3680043.8.498.10300151", "pancreas_001", ""],
)  # fmt: skip
def test_other_names_are_not(name):
    assert not repeats(name, MUELLER)


@given(letters, letters, separators, separators, st.booleans())
def test_any_part_is_found_between_any_separators_in_small_letters_or_large(name, other, mark, after, large):
    identity = Identity(texts=(f"{name}^{other}",))
    written = f"ct{mark}{name}{after}1"
    assert repeats(written.upper() if large else written, identity)


@given(
    st.lists(st.text("abcdefghijklm0123ÄÖÜäöü", max_size=8), max_size=3),
    st.text("nopqrstvwxyz_.-4567", max_size=20),
)
def test_nothing_is_found_where_no_letter_or_digit_is_shared(texts, name):
    assert not repeats(name, Identity(texts=tuple(texts)))


@given(letters, st.sampled_from(["ä", "ö", "ü"]), letters)
def test_umlauts_are_the_same_written_in_each_way(before, umlaut, after):
    spellings = [umlaut, {"ä": "ae", "ö": "oe", "ü": "ue"}[umlaut], {"ä": "a", "ö": "o", "ü": "u"}[umlaut]]
    for ours in spellings:
        for theirs in spellings:
            assert repeats(f"x_{before}{ours}{after}", Identity(texts=(f"{before}{theirs}{after}".upper(),)))


@given(
    st.dates(date(1900, 1, 1), date(2026, 1, 1)),
    st.sampled_from(["%Y%m%d", "%d.%m.%Y", "%m-%d-%y", "%y%m%d"]),
)
def test_a_birth_date_is_found_in_every_usual_form(day, form):
    assert repeats(f"ct_{day.strftime(form)}_a", Identity(birth_dates=(day,)))


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=3))
def test_whatever_it_is_given_it_answers(name, texts):
    identity = Identity(texts=tuple(texts))
    found = repeats(name, identity)
    assert found == repeats(name.swapcase().swapcase(), identity) or not name.isascii()
    if not any(len(re.findall(r"\w", text)) >= MIN_TOKEN for text in texts) and all(map(str.isascii, texts)):
        assert not found


def test_what_headers_say_of_the_patient_is_read(tmp_path):
    fields = {
        "SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Hans", "PatientID": "4711",
        "OtherPatientIDs": ["OLD-12", "OLD-13"], "AccessionNumber": "A9", "PatientBirthDate": "19500103",
    }  # fmt: skip
    write_series(tmp_path / "scan", positions=FIVE, fields=fields)
    (tmp_path / "scan" / "000.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"torn")
    (tmp_path / "scan" / "0.txt").write_text("no DICOM")
    identity = read_identity(tmp_path / "scan")
    assert identity == Identity(
        texts=("Müller^Hans", "4711", "OLD-12", "OLD-13", "A9"), birth_dates=(date(1950, 1, 3),)
    )
    assert "4711" not in repr(identity)
    assert "1950" not in str(identity)


def test_a_header_without_identity_has_none_to_repeat(tmp_path):
    hard = {"PatientName": "", "PatientID": None, "PatientBirthDate": ""}
    write_series(tmp_path / "hard", positions=FIVE, fields=hard)
    assert read_identity(tmp_path / "hard") == Identity()
    write_series(tmp_path / "removed", positions=FIVE, fields={"PatientIdentityRemoved": "YES"})
    assert read_identity(tmp_path / "removed") == Identity()
    (tmp_path / "none").mkdir()
    assert read_identity(tmp_path / "none") == Identity()
