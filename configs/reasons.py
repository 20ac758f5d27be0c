"""Why a row is not in the mix: the words of ledger and quarantine, what they mean and what to do.

Methods list the words of their own beside their configuration, as `reasons` of the model.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """What stands behind one word."""

    meaning: str
    remedy: str


LEDGER = {
    "damaged_file": Reason(
        "The file is not of its kind, breaks off, or is damaged; none of its rows is used. `row` is null in the "
        "quarantine where their number is not known.",
        "Fetch it again; `detail` says how far it could be read. It is read anew when its size or date has changed.",
    ),
    "duplicate_file": Reason("The whole file has the content of another.", "`keeper_file` is the one that is used."),
    "not_drawn": Reason(
        "The row survived selection, but the mix did not draw it, or (stage `sample`) no batch took it. Its score is "
        "what a sampler that goes by scores went by, the highest of its draws.",
        "Raise `mix.budget` or the proportion of its group, or lower `sample.filter_ratio`.",
    ),
    "tail": Reason(
        "The row was drawn behind the last whole superbatch.", "Raise `mix.budget`, or lower `sample.batch_size`."
    ),
}
"""Of every run."""

SELECTING = {
    "over_target": Reason(
        "Nothing speaks against the row, but the select's target is met by rows that it ranks higher.",
        "Raise the target; the report shows what the select keeps at other sizes.",
    ),
}
"""Of selects with a target."""

INGEST = {
    "image_null": Reason("The image is null.", "Leave such rows out, or curate text alone with `input.image: null`."),
    "image_empty": Reason("The image has no bytes.", "Fetch it again; empty answers are often saved as empty files."),
    "text_null": Reason("The text is null.", "Leave such rows out, or curate images alone with `input.text: null`."),
    "text_blank": Reason("The text has nothing but white space.", "Caption such rows, or leave them out."),
    "text_not_utf8": Reason("The text is not valid UTF-8.", "Convert it, with `iconv -f latin1 -t utf-8` as a rule."),
}
"""Of every input."""

CONVERSION = {
    "invalid_json": Reason("The line or member is no JSON.", "`detail` says where it goes wrong; write it anew."),
    "not_an_object": Reason("The line is JSON, but no object.", "Write one object with named fields a line."),
    "line_too_long": Reason("The line is longer than is read.", "Put large data into files that the line names."),
    "too_many_fields": Reason("The record has more fields than a table can hold.", "Put them into one field."),
    "duplicate_member": Reason(
        "A sample of the tar has two members of one extension.", "Give samples names of their own, or leave one out."
    ),
    "member_not_a_file": Reason(
        "A member of the tar is a link, a device or a sparse file: it is not followed.",
        "Put the file itself into the tar: `tar --dereference --hard-dereference`, without `--sparse`.",
    ),
    "member_too_large": Reason("A member of the tar is larger than is read.", "Leave it out of the tar."),
    "path_escapes_folder": Reason(
        "The image path is absolute, a URL, or leads out of the folder, perhaps by a link: it is not followed.",
        "Put the picture beside the file that names it, and name it relative to that.",
    ),
    "image_not_found": Reason(
        "The file that is named as the image is not there.",
        "Compare the name with the folder; put it there and `touch` the JSONL file, which is then read again.",
    ),
    "image_path_not_text": Reason("The image field is no text.", "`input.image` names a field that holds paths."),
    "image_too_large": Reason("The image file is larger than is read.", "Write it anew as JPEG or PNG."),
    "caption_too_large": Reason("The caption file is larger than is read.", "It is hardly a caption; shorten it."),
    "caption_not_found": Reason("The caption file is a link that leads nowhere.", "Put the file itself there."),
}
"""Of what is converted to Parquet."""

EMBEDDING = {
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
"""Of pictures and texts that a model embeds."""

PICTURES = {
    word: EMBEDDING[word]
    for word in (
        "not_an_image",
        "unsupported_image",
        "truncated_image",
        "undecodable_image",
        "too_many_pixels",
        "image_bomb",
    )
}
"""Of those, what is said of a picture alone."""
