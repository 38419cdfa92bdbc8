"""The errors a user can cause.

The command line catches :class:`UserError`, prints it as one line and exits
with code 2. Everything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path


class UserError(Exception):
    """Something the user gave cannot be used; the message says what to do.

    The parts are separate arguments so that no message can leave one out.
    """

    def __init__(self, subject: str | Path, *, expected: str, found: str, remedy: str) -> None:
        self.subject = str(subject)
        self.expected = expected
        self.found = " ".join(found.split())  # libraries' complaints may hold line breaks
        self.remedy = remedy
        super().__init__(f"{self.subject}: expected {expected}, found {self.found}; {remedy}")

    def __reduce__(self) -> tuple[partial[UserError], tuple[()]]:
        """Pickle by the parts, so that a worker process can hand the error back."""
        parts = {"expected": self.expected, "found": self.found, "remedy": self.remedy}
        return partial(type(self), self.subject, **parts), ()
