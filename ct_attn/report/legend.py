"""How organs are named and coloured: the same in pictures, plots and tables."""

from __future__ import annotations

from collections.abc import Sequence

#: Okabe and Ito's colours that stand out on grey, white and black alike, in the order of the structures.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")

#: What only one mask has: told apart by hue and by brightness, whatever colours an eye can see.
ONLY_TRUTH, ONLY_PREDICTED = "#D55E00", "#56B4E9"


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """The colour of each structure or organ, the same in pictures, plots and tables."""
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def display_name(name: str) -> str:
    return name.replace("_", " ")
