"""A file is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path, *, previous: Path | None = None) -> Iterator[Path]:
    """Yield a path beside ``target`` that replaces it when the block succeeds.

    The yielded name ends like ``target`` does, for writers that choose a format
    by suffix. On success the bytes are flushed to disk before the rename, so a
    crash leaves the old file or the new one; when the block raises, the partial
    file is removed and an older ``target`` stays as it was. With ``previous``, the
    older ``target`` is kept under that name (beside it); a crash may then leave
    ``previous`` alone, whole. Missing parent folders are made. An ``OSError`` names
    ``target`` as its file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # By chance, not by process: two machines that share a folder share process numbers too.
    partial = target.with_name(f".partial-{secrets.token_hex(4)}-{target.name}")
    try:
        yield partial
        _flush_to_disk(partial)
        if previous is not None and target.exists():
            target.replace(previous)
        partial.replace(target)
        _flush_to_disk(target.parent)
    except OSError as error:
        if error.errno is not None:  # a write that fails on a full disk names no file
            error.filename = str(target)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``target``, whole or not at all."""
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all."""
    with replacing(target) as partial:
        partial.write_bytes(content)


def remove_partials(folder: Path) -> None:
    """Remove from ``folder`` what writers that were killed left behind; nobody may be writing there."""
    for partial in folder.glob(".partial-*"):
        partial.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
