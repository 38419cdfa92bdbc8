"""The size of a page: one file is to be mailed and opened anywhere, so pictures give way in time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

#: A page stays below 20 MB, mail's usual limit; the rest is room for a mail's own lines.
MAX_PAGE_BYTES = 19_500_000


def fit_page(render: Callable[[int], str], n_economies: int, *, max_bytes: int = MAX_PAGE_BYTES) -> str:
    """The page with as few of its economies as bring it to at most ``max_bytes`` of UTF-8.

    ``render(n)`` is the page with the first ``n`` of ``n_economies``, the one that hurts least
    coming first. With all of them it is returned however large it is: what is left are
    numbers, and they are never left out.
    """
    html = render(0)
    if len(html.encode()) <= max_bytes or not n_economies:
        return html
    n = bisect_left(range(1, n_economies), True, key=lambda n: len(render(n).encode()) <= max_bytes) + 1
    return render(n)


def named(case_ids: Iterable[str], *, most: int = 12) -> str:
    """The cases in words, each once; of many the first ``most`` and how many more."""
    each = list(dict.fromkeys(case_ids))
    more = f" and {len(each) - most} more" if len(each) > most else ""
    return ", ".join(each[:most]) + more
