"""What became of input files: new, gone, rewritten, renamed, each file told once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.parentage import changed_files

LISTS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("1234"), max_size=8).map(
    lambda files: [{"file": file, "digest": digest} for file, digest in files.items()]
)


def listed(**files):
    return [{"file": file, "digest": digest} for file, digest in files.items()]


def test_each_kind_of_change_by_hand():
    before = listed(a="1", b="2", c="3", d="4", same="5", touched="6")
    found = changed_files(before, listed(a="9", same="5", e="2", f="7", touched=None, g=None))
    assert (found.new, found.gone, found.rewritten) == (["f", "g"], ["c", "d"], ["a"])
    assert (found.renamed, found.unread) == ([("b", "e")], ["touched"])
    assert found.told == (
        "2 new (f, g); 2 gone (c, d); 1 rewritten (a); 1 renamed (b -> e); 1 written or touched since they were read "
        "(touched)"
    )


def test_nothing_has_changed():
    assert not changed_files(listed(a="1", b="1"), listed(b="1", a="1"))
    assert changed_files([], []).told == ""


def test_a_copy_is_new_and_one_of_two_copies_that_moves_is_renamed():
    assert changed_files(listed(a="1"), listed(a="1", b="1")).new == ["b"]
    found = changed_files(listed(a="1", b="1"), listed(c="1"))
    assert (found.renamed, found.gone) == ([("a", "c")], ["b"])


def test_three_names_are_told_and_the_number_of_all():
    found = changed_files([], listed(**{f"{number:02d}": str(number) for number in range(40)}))
    assert found.told == "40 new (00, 01, 02, …)"


@given(LISTS, LISTS)
def test_changes_lead_from_the_one_to_the_other(before, now):
    found, then, here = changed_files(before, now), *({one["file"]: one["digest"] for one in x} for x in (before, now))
    made = {file: digest for file, digest in then.items() if file not in found.gone}
    for old, new in found.renamed:
        made[new] = made.pop(old)
    assert all(then[old] == here[new] for old, new in found.renamed)
    made |= {file: here[file] for file in [*found.new, *found.rewritten]}
    assert made == here
    assert bool(found) == (then != here)
