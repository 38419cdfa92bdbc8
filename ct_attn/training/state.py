"""The state of a training at the end of an epoch: a file that is whole or not there.

Lightning would write over its last checkpoint, and a full disk then leaves none. Here
the newest state replaces the one before by a rename, and that one is kept.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from ct_attn.atomic import replacing
from ct_attn.errors import UserError

_FORMAT = "ct_attn state 1"
_SEAL = "ct_attn"  # the entry of the file that holds format and digest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadState:
    """What a training goes on with; ``is_newest``: no damaged newer one lies beside it."""

    content: dict[str, Any]
    is_newest: bool


def write_state(state: Mapping[str, Any], file: Path, *, previous: Path | None) -> None:
    """Write ``state`` whole or not at all; the older ``file`` becomes ``previous`` where one is given.

    Raises :class:`UserError` when there is no room or no permission; both older files
    are then what they were.
    """
    sealed = {**state, _SEAL: {"format": _FORMAT, "digest": content_digest(state)}}
    try:
        with replacing(file, previous=previous) as partial, partial.open("wb") as opened:
            stream = _Stream(opened)
            torch.save(sealed, cast(BinaryIO, stream))  # it needs no more of a file
            stream.check()
    except OSError as error:
        raise UserError(
            file,
            expected="a disk that takes the state of the training",
            found=error.strerror or str(error),
            remedy="make room and go on with --resume; the states saved before are intact",
        ) from error


def read_state(file: Path, previous: Path, say: Callable[[str], object]) -> ReadState | None:
    """The state in ``file``, or when that is damaged, in ``previous``; None where neither is there.

    ``say`` hears of it when it is not the newest. Nothing but tensors and plain values
    is unpickled. Raises :class:`UserError` when none is a whole state.
    """
    if not file.exists() and not previous.exists():
        return None
    try:
        return ReadState(content=_read(file), is_newest=True)
    except UserError as damaged:
        try:
            content = _read(previous)
        except UserError:
            raise damaged from None
        say(f"{damaged.subject}: {damaged.found}; going on from {previous}, one epoch before")
        return ReadState(content=content, is_newest=False)


class StateFile(CheckpointIO):
    """Lightning's way to our state files. ``loaded`` is handed out once, whatever path is asked for."""

    def __init__(self, previous: Path, loaded: ReadState | None) -> None:
        self.previous = previous
        self.loaded = loaded
        self.older_is_whole = loaded is None or loaded.is_newest

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_state(checkpoint, Path(path), previous=self.previous if self.older_is_whole else None)
        self.older_is_whole = True

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        assert self.loaded is not None
        content, self.loaded = self.loaded.content, None
        return content

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def content_digest(value: object) -> str:
    """``sha256:`` over nested dicts, lists, tensors (shape, type, bytes) and plain values, in their order."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return f"sha256:{digest.hexdigest()}"


def _feed(digest: Any, value: object) -> None:
    match value:
        case Tensor():
            digest.update(f"tensor {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        case dict():
            digest.update(f"dict {len(value)}\n".encode())
            for key, inner in value.items():
                _feed(digest, key)
                _feed(digest, inner)
        case list() | tuple():
            digest.update(f"list {len(value)}\n".encode())
            for inner in value:
                _feed(digest, inner)
        case _:
            digest.update(f"{value!r}\n".encode())


def _read(file: Path) -> dict[str, Any]:
    try:
        # Tensors and plain values only: a file from elsewhere must not run code.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _refusal(file, reason or "a damaged or foreign file") from error
    seal = content.pop(_SEAL, None) if isinstance(content, dict) else None
    if not isinstance(seal, dict) or seal.get("format") != _FORMAT:
        raise _refusal(file, "a file of another program or version")
    if seal.get("digest") != content_digest(content):
        raise _refusal(file, "one changed since it was saved (the digest differs)")
    return dict(content)


def _refusal(file: Path, found: str) -> UserError:
    return UserError(
        file,
        expected=f"the state of a training ({_FORMAT})",
        found=found,
        remedy="restore the file, or start anew with another -o",
    )


class _Stream:
    """A file as torch writes to it; an error waits until torch is done, whose own words hide it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        self.flush()
        if self.error is not None:
            raise self.error
