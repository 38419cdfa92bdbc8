"""Whether a name tells whose scan it is: it is compared with what the scan's DICOM headers say.

Names of folders become names of cases, masks and records, so one that repeats the patient's name,
an id or the date of birth would carry it into all of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

#: A shorter piece of a name or id says nothing: "CT", "1", "de".
MIN_TOKEN = 3
#: A piece this long is also found within a word: MUELLER in MUELLERHANS, 4711815 in PAT4711815B.
MIN_INSIDE = 5

_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName")
_IDS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
_OTHERS = "OtherPatientIDsSequence"
_BIRTH_DATE = "PatientBirthDate"
_REMOVED = "PatientIdentityRemoved"
_BEHIND_THEM = "Rows"  # stands behind the patient in a file: where it is, nothing of them was cut off

#: Letters that Unicode does not take apart, and digraphs that stand for one letter: Müller, Mueller and
#: Muller are one name.
_LETTERS = str.maketrans({"ø": "o", "đ": "d", "ł": "l", "æ": "a", "œ": "o", "ı": "i", "þ": "t", "ð": "d"})
_DIGRAPHS = re.compile("([aou])e")
_CAMEL = re.compile("(?<=[a-zäöüß])(?=[A-ZÄÖÜ])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a scan's headers say of its patient; never to be printed or written.

    ``texts``: names, ids and accession number as they stand; ``birth_dates``: days of birth.
    """

    texts: tuple[str, ...] = ()
    birth_dates: tuple[date, ...] = ()

    def __repr__(self) -> str:
        """Nothing of it: it must not get into a log by way of a traceback."""
        return f"{type(self).__name__}(...)"

    def __or__(self, other: Identity) -> Identity:
        """What both say."""
        return Identity(
            texts=(*self.texts, *other.texts), birth_dates=(*self.birth_dates, *other.birth_dates)
        )


def repeats(name: str, identity: Identity) -> bool:
    """Whether ``name`` repeats a part of ``identity``.

    A part is a run of letters or digits of at least :data:`MIN_TOKEN` characters. It is found
    where it is one of the name's own runs or, from :data:`MIN_INSIDE` characters on, anywhere
    within the name. Neither case, accents, umlauts (ü, ue, u) nor separators make a difference.
    The date of birth is found in every usual order, with a year of four digits or two.
    """
    if any(re.search(form, name) for day in identity.birth_dates for form in _written(day)):
        return True
    return any(
        _shares_a_part(one, other)
        for text in identity.texts
        for spelled in {name, _CAMEL.sub("_", name)}
        for one, other in zip(_foldings(spelled), _foldings(text), strict=True)
    )


def _shares_a_part(name: str, text: str) -> bool:
    """Whether ``name`` holds a part of ``text``, both folded."""
    runs, squeezed, whole = set(_runs(name)), _squeezed(name), _squeezed(text)
    if len(whole) >= MIN_TOKEN and whole == squeezed:
        return True
    return any(
        part in runs or (len(part) >= MIN_INSIDE and part in squeezed)
        for part in (*_runs(text), whole)
        if len(part) >= MIN_TOKEN
    )


def read_identity(folder: Path) -> Identity:
    """What the DICOM files in ``folder`` say of their patient; nothing where they aren't any.

    All slices of a scan say the same, so files are read up to the first whole header of an image.
    One which says that its identity was removed (PatientIdentityRemoved, as TCIA's do) holds
    pseudonyms.
    """
    import pydicom  # noqa: PLC0415 - not needed where no scan is DICOM
    from pydicom.config import disable_value_validation  # noqa: PLC0415

    from ct_attn.scan_io.dicom_headers import require_modest_deflation  # noqa: PLC0415

    tags = [*_NAMES, *_IDS, _OTHERS, _BIRTH_DATE, _REMOVED, _BEHIND_THEM]
    found = Identity()
    with disable_value_validation():  # its warnings quote the file, patient and all
        for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
            try:
                require_modest_deflation(path)
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
                found |= _identity_of(header)
            except Exception:  # no DICOM, or damaged, for which pydicom raises nearly anything
                continue
            if _BEHIND_THEM in header:
                break
    return found


def _identity_of(header: Any) -> Identity:
    if str(header.get(_REMOVED) or "").upper() == "YES":
        return Identity()
    others = header.get(_OTHERS) or ()
    values = [header.get(keyword) for keyword in (*_NAMES, *_IDS)] + [one.get("PatientID") for one in others]
    return Identity(
        texts=tuple(text for value in values for text in _texts(value) if text),
        birth_dates=tuple(_days(str(header.get(_BIRTH_DATE) or ""))),
    )


def _texts(value: Any) -> Iterator[str]:
    """The strings of an element: none, one or several."""
    from pydicom.multival import MultiValue  # noqa: PLC0415

    yield from map(str, value if isinstance(value, MultiValue) else [] if value is None else [value])


def _days(text: str) -> Iterator[date]:
    """The day in YYYYMMDD or, as old files have it, YYYY.MM.DD; nothing where there is none."""
    digits = re.sub(r"\D", "", text)
    try:
        yield date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return


def _written(day: date) -> Iterator[str]:
    """Regular expressions for ``day`` in the orders people write it, with separators or without."""
    for year in (f"{day.year:04}", f"{day.year % 100:02}"):
        for between, (month, of_month) in (
            (r"[\W_]*", (f"{day.month:02}", f"{day.day:02}")),
            (r"[\W_]+", (f"{day.month}", f"{day.day}")),  # 3.1.50, but not the number 3150
        ):
            for order in ((year, month, of_month), (of_month, month, year), (month, of_month, year)):
                yield rf"(?<!\d){between.join(order)}(?!\d)"
                if len("".join(order)) == 8:  # no coincidence within a longer number, as six digits are
                    yield "".join(order)


def _foldings(text: str) -> tuple[str, str]:
    """``text`` in small letters without accents; and with ae, oe and ue as one letter besides."""
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter))
    return plain, _DIGRAPHS.sub(r"\1", plain)


def _squeezed(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def _runs(text: str) -> list[str]:
    """The runs of letters, of digits (also without leading zeros), and of both."""
    digits = re.findall(r"\d+", text)
    stripped = [run.lstrip("0") for run in digits]
    return [*re.findall(r"[^\W\d_]+", text), *digits, *stripped, *re.findall(r"[^\W_]+", text)]
