"""Selections that keep one row of each group of equal or nearly equal rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods.score import ImageDigest, ImageHash, MinHashSignature, TextDigest
from configs.methods.targets import KEEP_BY, KeepBy, Targeted
from configs.reasons import Reason
from configs.section import Section


class ExactDuplicates(Targeted):
    """Keep one row of each set of equal rows: equal in image bytes and text, in the image alone, or in the text alone.

    With a target, the copies that are furthest down in their groups go first.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "exact_duplicate": Reason(
            "Another row has the same image bytes and text (or the one of them that the select names in `of`).",
            "`keeper_file` and `keeper_row` name the kept one.",
        )
    }

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    of: Literal["pair", "image", "text"] = Field(
        "pair",
        description="What must be equal: image bytes and text; image bytes alone; or the text alone, after NFKC, in "
        "lower case, with runs of white space as one space.",
    )
    keep_by: KeepBy = Field(None, description=KEEP_BY)

    def prepares(self) -> list[Section]:
        """The digest that rows are compared by."""
        digests: dict[str, list[Section]] = {"image": [ImageDigest()], "text": [TextDigest()]}
        return [*super().prepares(), *digests.get(self.of, [])]


class NearDuplicates(Targeted):
    """Keep one row of each group of rows whose embeddings are nearly equal.

    Pairs are looked for inside cells of about `bucket_rows` rows, found by k-means. With a target the most alike rows
    go first.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "near_duplicate": Reason(
            "Another row's embedding is alike by the select's `threshold` or more (or by what its target asked for).",
            "The keeper is named; raise `threshold` to drop fewer.",
        )
    }

    kind: Literal["near_duplicates"] = "near_duplicates"
    embedding: Literal["image", "text", "both"] = Field(
        "image",
        description="Which embedding is compared. `both`: two rows are near duplicates if image and text both are; "
        "their similarity is the smaller of the two cosines.",
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="Cosine from which two rows count as near duplicates; null: 0.95."
    )
    text_threshold: float | None = Field(
        None, gt=0, le=1, description="With `both`: the texts' own threshold; null: the same as the images'."
    )
    groups: Literal["greedy", "components", "semdedup"] = Field(
        "greedy",
        description="`greedy`: from the best row down, a row that is still free stays and drops the free rows that are "
        "alike it, so every dropped row is alike its keeper. `components`: one row of each set that is connected by "
        "pairs that are alike. `semdedup`: a row goes if any row before it, dropped or not, is alike it. With a target "
        "`greedy` lets the closest pairs go first: the worse row of the two most alike rows that still stand.",
    )
    order: Literal["keep_by", "hard", "easy", "random"] = Field(
        "keep_by",
        description="With `semdedup`: which rows come first in a cell: the best by `keep_by`; the least (`hard`, the "
        "paper's choice) or most (`easy`) alike the cell's centroid; or any.",
    )
    keep_by: KeepBy = Field("alignment", description=KEEP_BY)
    bucket_rows: int = Field(
        8192,
        ge=2,
        le=65536,
        description="Rows per cell, about: there are as many cells as rows / bucket_rows (SemDeDup has 8,800 rows a "
        "cell on LAION-440M). With no more rows than this the result is exact; larger cells find more pairs for more "
        "work.",
    )
    draw: int = Field(
        0,
        ge=0,
        le=2**63 - 1,
        description="Another number draws other cells: the select listed twice, with two numbers, finds most of the "
        "pairs that the first pass missed because a cell border divides them.",
    )

    @property
    def compared(self) -> tuple[str, ...]:
        """The embeddings compared."""
        return ("image", "text") if self.embedding == "both" else (self.embedding,)

    def cut(self, name: str) -> float:
        """The threshold of one of the compared embeddings; what a target replaces."""
        own = self.text_threshold if name == "text" and self.embedding == "both" else None
        return own or self.threshold or 0.95

    @model_validator(mode="after")
    def _fits(self) -> NearDuplicates:
        given = next((name for name in ("threshold", "text_threshold") if getattr(self, name) is not None), None)
        if self.target is not None and given:
            raise ValueError(f"`{given}` and a target are given; a target replaces the threshold, so give one of them")
        if self.text_threshold is not None and self.embedding != "both":
            raise ValueError(f"`text_threshold` is given, but `embedding` is {self.embedding!r}; it is for 'both'")
        if self.order != "keep_by" and self.groups != "semdedup":
            raise ValueError(f"`order` is {self.order!r}, but `groups` is {self.groups!r}; it is for 'semdedup'")
        return self


class MinHash(Targeted):
    """Keep one row of each group of texts that share most of their n-grams, by MinHash.

    Of two texts the similarity (Jaccard) is the share of their n-grams that both have. Rows are candidates if they
    agree in one of the signature's bands; by default their whole signatures are compared then.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "near_duplicate_text": Reason(
            "Another row's text has the select's `threshold` or more of its n-grams in common with this one's.",
            "`keeper_file` and `keeper_row` name the kept one; raise `threshold` to drop fewer.",
        )
    }

    kind: Literal["minhash"] = "minhash"
    threshold: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard similarity, estimated, from which two texts count as near duplicates. With a target: "
        "the least that speaks against a row.",
    )
    recall: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Probability with which two texts at the threshold are to be candidates: bands are chosen for it.",
    )
    bands: int | None = Field(None, ge=1, description="Bands of the signature, in place of `recall`.")
    band_rows: int | None = Field(None, ge=1, description="Hashes of a band; given with `bands`.")
    verify: bool = Field(True, description="Compare the signatures of candidates. False: every candidate is alike.")
    groups: Literal["greedy", "components"] = Field(
        "greedy",
        description="`greedy`: every dropped row is alike to its keeper. `components`: one row stays of all that "
        "chains of alike rows connect.",
    )
    keep_by: KeepBy = Field("longest_text", description=KEEP_BY)
    sketch: MinHashSignature = Field(MinHashSignature(), description="How signatures are made.")

    def prepares(self) -> list[Section]:
        """The signatures that rows are compared by."""
        return [*super().prepares(), self.sketch]

    @model_validator(mode="after")
    def _bands_fit(self) -> MinHash:
        if (self.bands is None) != (self.band_rows is None):
            raise ValueError(f"`bands` is {self.bands} and `band_rows` {self.band_rows}; give both or neither")
        if self.bands and self.band_rows and self.bands * self.band_rows > self.sketch.num_perm:
            raise ValueError(
                f"`bands` times `band_rows` is {self.bands * self.band_rows}; `sketch.num_perm` is "
                f"{self.sketch.num_perm}, give at least as many hashes"
            )
        return self


class Perceptual(Targeted):
    """Keep one row of each group of pictures that look the same: their perceptual hashes differ in few bits.

    Resized, recompressed and slightly cropped copies are found, recoloured ones mostly too: hashes are of grey
    pictures. Pictures with next to nothing in them have no hash worth comparing; they are grouped if rows are equal.
    """

    reasons: ClassVar[dict[str, Reason]] = {
        "near_duplicate_image": Reason(
            "Another picture looks the same: their hashes differ in at most `max_distance` bits.",
            "The keeper is named, the score is the share of equal bits; lower `max_distance` to drop fewer.",
        )
    }

    kind: Literal["perceptual"] = "perceptual"
    hash: Literal["phash", "dhash", "ahash", "whash"] = Field("phash", description="Hash, as of `image_hash`.")
    hash_size: int = Field(
        8, ge=8, le=32, multiple_of=4, description="Side of the hash: 8 gives 64 bits, 16 gives 256, 32 gives 1,024."
    )
    max_distance: int = Field(
        4,
        ge=0,
        le=256,
        description="Bits in which two alike pictures may differ; a quarter of all bits at most. Of more than a "
        "million pictures 4 of 64, 12 of 256 or 40 of 1,024 at most, or chance connects nearly all and pairs are "
        "missed.",
    )
    min_spread: float = Field(
        2,
        ge=0,
        le=128,
        allow_inf_nan=False,
        description="Standard deviation, in grey levels of 0 to 255, that the shrunken picture must have: below, "
        "rounding makes the hash.",
    )
    flips: bool = Field(False, description="Find mirrored copies too.")
    max_pixels: int = Field(
        64_000_000, ge=1, le=178_000_000, description="Pictures that claim more pixels are quarantined undecoded."
    )
    groups: Literal["greedy", "components"] = Field(
        "greedy",
        description="`greedy`: every dropped picture is within `max_distance` of its keeper; `components`: whatever a "
        "chain of alike pictures joins is one group. With a target the closest pairs go "
        "first, of `components` by single linkage.",
    )
    keep_by: KeepBy = Field("largest_image", description=KEEP_BY)

    @property
    def sketch(self) -> ImageHash:
        """What is compared."""
        return ImageHash(hash=self.hash, hash_size=self.hash_size, flips=self.flips, max_pixels=self.max_pixels)

    def prepares(self) -> list[Section]:
        """The hashes."""
        return [*super().prepares(), self.sketch]

    @model_validator(mode="after")
    def _within_reach(self) -> Perceptual:
        if self.max_distance > self.sketch.bits // 4:
            raise ValueError(
                f"`max_distance` is {self.max_distance} of {self.sketch.bits} bits; at most {self.sketch.bits // 4} "
                "tell pictures apart"
            )
        return self
