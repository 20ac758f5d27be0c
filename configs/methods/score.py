"""Scores: one or more named columns each. One model a method; a stage with several has a union on `kind`.

Some are sketches: what selects compare rows by, made once a shard and kept in the store. Nobody need list those: a
select that wants one has it made.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.methods.grouping import ClusterGroups, ConceptGroups, ScoreGroups
from configs.methods.proxies import Trajectory
from configs.methods.skills import SkillGraph
from configs.methods.utility import Gradients, TokenLosses, UtilityDiversity
from configs.reasons import PICTURES, Reason
from configs.section import Section


class Alignment(Section):
    """Cosine of image and text embedding."""

    kind: Literal["alignment"] = "alignment"


class Tokens(Section):
    """Number of tokens of each text: what `target_tokens` counts."""

    kind: Literal["tokens"] = "tokens"
    tokenizer: str = Field(
        "words",
        description="`words` (runs of letters and digits), or the path of a `tokenizer.json` as Hugging Face's "
        "tokenizers write it.",
    )


class ImageDigest(Section):
    """A digest of the image's bytes: what exact image duplicates have in common."""

    kind: Literal["image_digest"] = "image_digest"


class TextDigest(Section):
    """A digest of the normalised text: NFKC, lower case, runs of white space as one space."""

    kind: Literal["text_digest"] = "text_digest"


class MinHashSignature(Section):
    """MinHash signatures of the texts: what the select `minhash` compares. 2 bytes a hash and row."""

    kind: Literal["minhash_signature"] = "minhash_signature"
    tokens: Literal["words", "characters"] = Field(
        "words",
        description="What n-grams are made of, after NFKC and case folding. `words`: runs of letters and digits; of "
        "scripts without spaces every character. `characters`: for captions and other texts of a few words.",
    )
    ngram: int = Field(5, ge=1, le=64, description="Tokens of an n-gram. A text of fewer is one n-gram.")
    num_perm: int = Field(128, ge=8, le=1024, description="Hashes of a signature: more estimate more exactly.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the hashes.")
    max_characters: int = Field(
        1_000_000, ge=1, le=50_000_000, description="Characters of a text that count: the first so many."
    )

    @property
    def column(self) -> str:
        """The column of signatures; its name tells the settings, so that two selects may have different ones."""
        cut = "" if self.max_characters == 1_000_000 else f"_{self.max_characters}"
        return f"minhash_{self.tokens}_{self.ngram}_{self.num_perm}_{self.seed}{cut}"

    @property
    def planted_column(self) -> str:
        """The column of signatures of planted near duplicates, by which a run measures what it finds."""
        return f"{self.column}_planted"


class ImageHash(Section):
    """A perceptual hash of each picture, as the library imagehash makes it: what `perceptual` compares."""

    operational: ClassVar[frozenset[str]] = frozenset({"decode_threads"})

    reasons: ClassVar[dict[str, Reason]] = PICTURES

    kind: Literal["image_hash"] = "image_hash"
    hash: Literal["phash", "dhash", "ahash", "whash"] = Field(
        "phash",
        description="`phash`: signs of the lowest frequencies; `dhash`: which of two neighbours is brighter; `ahash`: "
        "brighter than the mean; `whash`: the same of Haar wavelets.",
    )
    hash_size: int = Field(
        8, ge=8, le=32, multiple_of=4, description="Side of the hash: 8 gives 64 bits, 16 gives 256, 32 gives 1,024."
    )
    flips: bool = Field(False, description="Hash the mirrored picture too.")
    draft: bool = Field(
        True,
        description="Decode large JPEGs at a fraction of their size: many times as fast, 0 to 2 bits apart.",
    )
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=178_000_000,
        description="Pictures that claim more pixels are quarantined undecoded; Pillow itself reads no larger ones.",
    )
    decode_threads: int = Field(0, ge=0, le=256, description="Threads that decode and hash; 0: one per core.")

    @property
    def bits(self) -> int:
        """Length of a hash."""
        return self.hash_size**2

    @property
    def column(self) -> str:
        """Where the hashes are; the name tells the settings that two selects may have different."""
        limit = "" if self.max_pixels == 64_000_000 else f"_{self.max_pixels}"
        return f"{self.hash}_{self.bits}{'_flips' if self.flips else ''}{limit}"

    @property
    def mirrored_column(self) -> str:
        """Where the hashes of the mirrored pictures are."""
        return f"{self.column}_mirrored"

    @property
    def spread_column(self) -> str:
        """Where it is told how much there was to hash."""
        return f"{self.column}_spread"

    @model_validator(mode="after")
    def _power_of_two(self) -> ImageHash:
        if self.hash == "whash" and self.hash_size not in (8, 16, 32):
            raise ValueError(f"`hash_size` is {self.hash_size}; of `whash` it must be 8, 16 or 32")
        return self


Score = Annotated[
    Alignment
    | Tokens
    | ImageDigest
    | TextDigest
    | MinHashSignature
    | ImageHash
    | UtilityDiversity
    | TokenLosses
    | Gradients
    | Trajectory
    | ClusterGroups
    | ConceptGroups
    | ScoreGroups
    | SkillGraph,
    Field(discriminator="kind"),
]
