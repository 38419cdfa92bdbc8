"""``ct-attn compare`` on the runs of the network study, from its committed scores."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tests.integration.test_command_line import succeed

ROOT = Path(__file__).resolve().parents[2]
SCORES = ROOT / "benchmarks" / "results" / "network_study.csv"
NETWORKS = ("U-Net", "Attention U-Net", "Attention U-Net, two gates, open at first")
SEEDS = ("1", "2", "3")
MEASURES = {"dsc": "DSC", "s2s_mm": "S2S mm"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The output of comparing three networks of three seeds each, and the scores they have."""
    folder = tmp_path_factory.mktemp("study")
    with SCORES.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = []
    for network in NETWORKS:
        for seed in SEEDS:
            own = [row for row in rows if (row["network"], row["seed"]) == (network, seed)]
            run = folder / f"{NETWORKS.index(network)}-{seed}"
            run.mkdir()
            with (run / "scores.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(own[0]))
                writer.writeheader()
                writer.writerows(own)
            words.append(f"{network}={run}")
    succeed("compare", *words, "-o", folder / "out")
    return folder / "out", rows


def test_the_papers_table_has_every_network_with_the_means_of_its_scores(compared):
    output, rows = compared
    header, _, *lines = (output / "table.md").read_text(encoding="utf-8").splitlines()
    assert [name.strip() for name in header.split("|")[3:-1]] == list(NETWORKS)
    cells = {line.split("|")[1].strip(): line.split("|")[3:-1] for line in lines if line.startswith("| ")}
    for column, network in enumerate(NETWORKS):
        found = [
            float(row["dsc"]) for row in rows if row["network"] == network and row["organ"] == "pancreas"
        ]
        assert len(found) == 36
        assert float(cells["Pancreas DSC"][column].split("±")[0]) == pytest.approx(sum(found) / 36, abs=6e-4)
    assert r"\begin{tabular}" in (output / "table.tex").read_text(encoding="utf-8")


def test_the_studys_page_says_what_the_comparison_found(compared):
    output, _ = compared
    pairs = json.loads((output / "comparison.json").read_text(encoding="utf-8"))["pairs"]
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    shown = [pair for pair in pairs if pair["first"] == NETWORKS[0] and pair["measure"] in MEASURES]
    assert len(shown) == 2 * 3 * 2
    for pair in shown:
        assert line_of(pair) in page


def test_the_report_has_the_plots_and_the_statistics(compared):
    output, _ = compared
    page = (output / "report.html").read_text(encoding="utf-8")
    plots = re.findall(r'<svg[^>]*aria-label="([^"]*)"', page)
    assert sum("difference in DSC" in plot for plot in plots) == 1
    assert sum("Ranks" in plot and "bootstrap" in plot for plot in plots) >= len(MEASURES)
    assert sum("Bland-Altman" in plot for plot in plots) == 3 * len(NETWORKS)
    rankings = json.loads((output / "comparison.json").read_text(encoding="utf-8"))["rankings"]
    assert {ranking["measure"] for ranking in rankings} >= set(MEASURES)


def line_of(pair):
    """As the table of the page has it."""
    form = "+.3f"
    cells = (
        f"{pair['second']} less {pair['first']}: {pair['organ']}",
        MEASURES[pair["measure"]],
        f"{pair['difference']:{form}}",
        f"{pair['low']:{form}} to {pair['high']:{form}}",
        f"{pair['p_holm']:.3f}",
        f"{pair['wins']}/{pair['ties']}/{pair['losses']}",
    )
    return f"| {' | '.join(cells)} |"
