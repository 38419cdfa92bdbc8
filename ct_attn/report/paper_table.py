"""The table of a paper: organs and their measures down, runs across, mean ± standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ct_attn.metrics import CaseScore, Distribution, OrganSummary, summarize
from ct_attn.report.legend import display_name

#: As in Oktay et al. 2018, tables 1 and 2.
ROWS = (("dsc", "DSC", 3), ("precision", "Precision", 3), ("recall", "Recall", 3), ("s2s_mm", "S2S (mm)", 3))

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }
)  # fmt: skip


def markdown_table(runs: Mapping[str, Sequence[CaseScore]], notes: Sequence[str] = ()) -> str:
    """A Markdown table and a line for each note; a distance says how many cases it leaves out.

    ``n`` is the number of cases in a row's means, run by run where runs differ.
    """
    lines = [
        f"| | n | {' | '.join(name.replace('|', chr(92) + '|') for name in runs)} |",
        "|---" * (len(runs) + 2) + "|",
    ]
    for label, cells in _rows(runs):
        numbers = [_cell(*cell, " ± ", " ({} left out)") for cell in cells]
        lines.append(f"| {' | '.join([label, _n(cells), *numbers])} |")
    if notes:
        lines += ["", *(f"- {_one_line(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def latex_table(runs: Mapping[str, Sequence[CaseScore]], notes: Sequence[str] = ()) -> str:
    """The same table for LaTeX (package booktabs); the notes are comments above it."""
    lines = [
        *(f"% {_one_line(note)}" for note in notes),
        r"\begin{tabular}{lr" + "c" * len(runs) + "}",
        r"\toprule",
        " & ".join(["", "n", *(name.translate(_LATEX) for name in runs)]).strip() + r" \\",
        r"\midrule",
    ]
    for label, cells in _rows(runs):
        numbers = [_cell(*cell, r" $\pm$ ", r" ({} left out)") for cell in cells]
        lines.append(" & ".join([label.translate(_LATEX), _n(cells), *numbers]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _rows(
    runs: Mapping[str, Sequence[CaseScore]],
) -> Iterator[tuple[str, list[tuple[Distribution, int, int]]]]:
    """For every line its label, and per run the numbers, the cases they leave out, and the digits."""
    summaries = [{summary.organ: summary for summary in summarize(scores)} for scores in runs.values()]
    organs = dict.fromkeys(organ for of_run in summaries for organ in of_run)
    for organ in organs:
        for field, title, digits in ROWS:
            cells = []
            for of_run in summaries:
                numbers: Distribution = getattr(of_run[organ], field)
                cells.append((numbers, left_out(of_run[organ], numbers), digits))
            yield f"{display_name(organ).capitalize()} {title}", cells


def left_out(summary: OrganSummary, numbers: Distribution) -> int:
    """How many cases with the organ ``numbers`` leave out."""
    return max(0, summary.n_scored + summary.n_missed + summary.n_spurious - numbers.n)


def _n(cells: Sequence[tuple[Distribution, int, int]]) -> str:
    counts = [numbers.n for numbers, _, _ in cells]
    return " / ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))


def _one_line(note: str) -> str:
    return " ".join(note.split())


def _cell(numbers: Distribution, n_left_out: int, digits: int, plus_minus: str, apology: str) -> str:
    if numbers.mean is None:
        text = "–"
    else:
        text = f"{numbers.mean:.{digits}f}"
        if numbers.std is not None:
            text += f"{plus_minus}{numbers.std:.{digits}f}"
    return text + (apology.format(n_left_out) if n_left_out else "")
