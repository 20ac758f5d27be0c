"""Why a row is quarantined while it is embedded: the words that reports count by, and what to do about each."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """What stands behind one word."""

    meaning: str
    remedy: str


REASONS = {
    "not_an_image": Reason(
        "The bytes are no picture at all: empty, a web page, JSON, text, an archive, or noise.",
        "Look at how the pictures were fetched; error pages saved under a picture's name are the usual cause.",
    ),
    "unsupported_image": Reason(
        "A picture in a format, or with a kind of pixels, that is not read here: SVG, PSD, HEIC without its package.",
        "Convert it to PNG or JPEG, or install the package that the detail names and run again.",
    ),
    "truncated_image": Reason(
        "The picture ends before all of its pixels: a download or a copy was cut off.",
        "Fetch it again.",
    ),
    "undecodable_image": Reason(
        "The file has a picture's signature, but its content is damaged.",
        "Fetch it again, or repair it; the detail says what the decoder said.",
    ),
    "too_many_pixels": Reason(
        "The picture claims more pixels than `embed.max_pixels` allows.",
        "Raise `embed.max_pixels` (decoding takes up to 20 bytes of memory a pixel), or shrink the picture.",
    ),
    "image_bomb": Reason(
        "Decoding would cost far more memory or time than such a file is worth: it claims pixels that its bytes cannot "
        "hold, or is built from an absurd number of parts.",
        "Leave it out. If it is a picture of yours, write it anew with a common program, without its metadata.",
    ),
    "missing_image": Reason("The row has a text but no image.", "Embed texts alone, or drop such rows before."),
    "missing_text": Reason("The row has an image but no text.", "Embed images alone, or drop such rows before."),
    "undecodable_text": Reason("The text is not UTF-8.", "Convert it to UTF-8."),
    "non_finite_embedding": Reason(
        "The model returned NaN or infinity for the row.", "Set `embed.precision` to fp32, or check the weights."
    ),
}
"""Reason -> its meaning and what to do, for everything that `OpenClipEmbedder` quarantines."""


class BadImage(ValueError):
    """Raised when bytes give no picture; `reason` is one of `REASONS`, the message says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
