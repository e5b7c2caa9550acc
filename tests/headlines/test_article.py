import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.headlines.article import BLOCKS, clean

LENGTH = 200_000


@pytest.mark.parametrize(
    "text",
    [
        "a < b",
        "x <y> z",
        "if a <b and c> d",
        "I <3 you, and 2<3>1",
        "AT&T and Q&A; R&D & co",
        "?a=1&copy=2&lt=3",
        "&nonsense; &notit; &; &#; &#x;",
        "John <john@example.org> and <https://example.org>",
        "an open <!-- without an end",
        "family 👨‍👩‍👧 and flag 🏳️‍🌈",
        "שלום \u200fעולם",
        "می\u200cخواهم",
        "cafe\u0301",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<b>N</b>ASA", "NASA"),
        ("<p>A.</p><p>B</p>", "A. B"),
        ("<p>A.</p>B", "A. B"),
        ("<TABLE><TR><TD>1<TD>2</TABLE>", "1 2"),
        ("one<br>two<BR/>three", "one two three"),
        ("one<br/>two", "one two"),
        ("<ul><li>one<li>two</ul>", "one two"),
        ("very<wbr>long, <my-tag>un</my-tag>known", "verylong, unknown"),
        ("<a href=\"?x>y\" title='<b>'>link</a>ed", "linked"),
        ("<p>5 < 6 and 3 <4, AT&T", "5 < 6 and 3 <4, AT&T"),
        ("<p>Tom &amp; Jerry &#8217;&#x2019;&nbsp;&hellip;", "Tom & Jerry ’’ …"),
        ("<p>&lt;b&gt; &amp;amp;", "<b> &amp;"),
        ("<img src=x.png alt=Mars>", ""),
        ("<!-- only this -->", ""),
        ("<!-- <script> --> text", "text"),
        ("<!DOCTYPE html> text", "text"),
        ("<div><p></p></div>", ""),
        ("before<p>after <b", "before after"),
    ],
)
def test_html_is_read_as_its_text(text: str, words: str) -> None:
    assert clean(text) == words


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>document.write('<p>ad</p>'); if (a<b) c();</script>",
        "<script>for(;a<b;){}</script>",
        "<script async src='/x.js'></script>",
        "<script src='/x.js></script>",
        "<noscript><!--</noscript>",
        "<SCRIPT type='a>b'>x</SCRIPT>",
        "<style>p { color: red }</style>",
        "<noscript><p>Please enable JavaScript</p><img src=x></noscript>",
        "<template>a<template>b</template>c</template>",
        "<iframe src=x>no frames</iframe>",
        "<textarea>type <b>here</b></textarea>",
        "<!-- a comment > with <p>tags</p> -->",
    ],
)
def test_what_is_no_text_is_gone(hidden: str) -> None:
    assert clean(f"<p>to{hidden}day</p>") == "today"


def test_the_head_of_a_page_is_gone() -> None:
    page = (
        "<!doctype html><html><head><title>The &amp; title</title><meta charset=utf-8><noscript><img src=x></noscript>"
        "<style>b{}</style></head><body><h1>Rover lands</h1><p>It <em>work</em>s.</p></body></html>"
    )
    assert clean(page) == "Rover lands It works."


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_blocks_separate_words(block: str) -> None:
    assert clean(f"one<{block}>two</{block}>three") == "one two three"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("well-formed &amp; &#8217; &eacute; &#xe9;", "well-formed & ’ é é"),
        ("&lt;p&gt; is a tag", "<p> is a tag"),
        ("&#1;a&#xD800;b&shy;c", "a\ufffdbc"),
        (" a\t\nb\r\n\u00a0c\u2003d\u2028e\u3000", "a b c d e"),
        ("co\u00adop, \ufeffzero\u200b-width", "coop, zero-width"),
        ("word\u2060joiner", "wordjoiner"),
        ("N\0A\0S\0A", "NASA"),
        ("a\x1fb\x85c\x9bd\x7fe", "a b c d e"),
        ("half \ud83d a smile\udc00", "half a smile"),
        ("", ""),
        ("\ufeff \0 \n", ""),
    ],
)
def test_entities_blanks_and_junk(text: str, words: str) -> None:
    assert clean(text) == words


HOSTILE = """
    < <div> <!-- & <a_href=x> <script> <p> <b> <table> <template> <noscript> <title> <svg><title> </ <a_= &# &lt; &a
    <a <a_ <!doctype_ <!--<p>--> <p>&lt; 😀<p> <![CDATA[ <template><p> <div_a=' a<b> <a><p> <b_a=1> \ud800 \0
"""


@pytest.mark.parametrize("before", ["", "<p>x</p>"])
@pytest.mark.parametrize("after", ["", "</p>", ">"])
@pytest.mark.parametrize("piece", HOSTILE.split())
def test_hostile_input_comes_back(before: str, piece: str, after: str) -> None:
    piece = piece.replace("_", " ")
    text = before + piece * (LENGTH // len(piece)) + after
    assert len(clean(text)) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "<p " + " ".join(f"a{number}" for number in range(29_000)) + ">x",
        "<script " + " ".join(f"a{number}" for number in range(29_000)) + "></script><p>x",
        # 9 000 open elements that a browser opens again in each of 10 000 paragraphs
        "<p>" + "".join(f"<b a={number}>" for number in range(9_000)) + "</p>" + "<p>x</p>" * 10_000,
        "<a " + "=" * LENGTH,
        "<p>x<a" + " " * LENGTH,
        "<p>x<" + "a" * LENGTH,
        "<span>" * 15_000 + "</i>" * 25_000 + "x",
    ],
)
def test_what_browsers_do_in_quadratic_time_comes_back(text: str) -> None:
    assert len(clean(text)) <= len(text)


PIECES = """
    < > & <p> </p> <b> <!-- --> <script> </script> <template> </template> <title> a = \" ' / &amp; &#0; &#xd800; <svg>
    <![CDATA[ ]]> <table> <td> <select> <plaintext> <?x \ud800 \0 \v
"""


@given(st.lists(st.sampled_from(PIECES.split(" ")) | st.text(max_size=3), max_size=30).map("".join))
@example("<p>a</p>\ud800&#xD800;")
def test_every_result_can_be_tokenised(text: str) -> None:
    words = clean(text)
    words.encode()
    assert words == " ".join(words.split())
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in words)


@given(st.text(st.characters(exclude_characters="<&")))
@example(" a\u00ad\0 \u200b b\ufeff\x85c\ud800")
def test_plain_text_is_cleaned_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)
