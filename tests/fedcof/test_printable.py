"""Text of others on one line: what a terminal would obey is not in it, and all the rest is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof.printable import REPLACEMENT, printable

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_nothing_is_left_that_moves_a_cursor_or_cannot_be_written(text):
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    shown.encode()


@given(st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" [](){}$\\<>&:_é日")))
def test_what_can_be_printed_comes_out_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\r\nlines\tand\x0bmore", "two lines and more"),
        ("\x1b[31mred", f"{REPLACEMENT}[31mred"),
        ("a\u202eb\u2066c\x07\x9b", f"a{REPLACEMENT}b{REPLACEMENT}c{REPLACEMENT}{REPLACEMENT}"),
        ("\ud800", REPLACEMENT),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        (0.5, "0.5"),
    ],
)
def test_examples(text, shown):
    assert printable(text) == shown
