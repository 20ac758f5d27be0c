"""Why a row is quarantined while it is embedded."""

from __future__ import annotations

from configs.reasons import EMBEDDING as REASONS


class BadImage(ValueError):
    """Raised when bytes give no picture; `reason` is one of `REASONS`, the message says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise KeyError(reason)
        super().__init__(detail)
        self.reason = reason
