"""Turns an article, plain text or HTML, into the text that a model reads. Knows no tokens and no HTTP.

HTML goes to lexbor flat: every tag, opening or closing, is first renamed to the closing tag of an element that does not
exist, which a parser skips, with a blank before it where the element separates words. So no input nests, and what
browsers do in quadratic time (a deep tree, 30 000 attributes) takes linear time. Comments, entities, quotes inside
tags and the elements whose content is no text are lexbor's business.
"""

import html
import re
from html.entities import html5

from selectolax.lexbor import LexborHTMLParser

# Their content is not the article's text.
_HIDDEN = "iframe noembed noframes noscript script style template textarea title"
# They separate words.
_BLOCKS = """
    address article aside blockquote body br button caption center col colgroup dd details dialog dir div dl dt
    fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li link
    listing main menu meta nav ol optgroup option p plaintext pre search section select summary table tbody td tfoot th
    thead tr ul xmp
"""
# They do not.
_INLINE = """
    a abbr acronym area audio b base bdi bdo big blink canvas cite code data datalist del dfn em embed font i img input
    ins kbd label map mark marquee math meter nobr object output param picture progress q rb rp rt rtc ruby s samp slot
    small source span strike strong sub sup svg time track tt u var video wbr
"""
HIDDEN, BLOCKS, INLINE = (frozenset(names.split()) for names in (_HIDDEN, _BLOCKS, _INLINE))
KNOWN = HIDDEN | BLOCKS | INLINE

# A whole tag. Attributes need a "=", so that the `<b` of "if a <b and c> d" is none.
WHOLE_TAG = re.compile(r"</([a-z][a-z0-9]*+)\s*+>|<([a-z][a-z0-9]*+)(?:\s*+/?>|\s[^<>=]*+=[^<>]*+>)", re.I | re.A)
DOCTYPE = re.compile(r"<!doctype\s+html\b", re.I)
TAG = re.compile(r"(</?)([a-z][^\t\n\f\r /<>]*)", re.I | re.A)  # the start of anything that a parser may take for a tag
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")

# Soft hyphens, zero-width blanks and byte-order marks; the joiners stay, emoji and Persian are written with them.
INVISIBLE = re.compile("[\0\u00ad\u200b\u2060\ufeff]")
UNPRINTABLE = re.compile("[\x01-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """The article's words between single blanks; "" if there are none."""
    text = _printable(text)
    text = _text_of_html(text) if _is_html(text) else ENTITY.sub(_decoded, text)
    return " ".join(_printable(text).split())  # once more: entities may have brought what is not printable


def _printable(text: str) -> str:
    return UNPRINTABLE.sub(" ", INVISIBLE.sub("", text))


def _is_html(text: str) -> bool:
    """Whether a tag of HTML stands in it; a stray "<", "x <y> z" and "a < b" make no HTML."""
    if any((tag[1] or tag[2]).lower() in KNOWN for tag in WHOLE_TAG.finditer(text)):
        return True
    comment = text.find("<!--")
    return (comment >= 0 and text.find("-->", comment) >= 0) or DOCTYPE.search(text) is not None


def _text_of_html(text: str) -> str:
    # "scripting" makes the content of <noscript> one piece, as in a browser that would not show it.
    page = LexborHTMLParser(TAG.sub(_flat, text), is_fragment=True, scripting=True)
    page.strip_tags(list(HIDDEN))
    return page.text()


def _flat(tag: re.Match[str]) -> str:
    name = tag[2].lower()
    if name in HIDDEN:
        return tag[0] if tag[1] == "</" else f"<{name}>"  # its attributes turn into hidden content
    return " </x" if name in BLOCKS else "</x"


def _decoded(entity: re.Match[str]) -> str:
    """The character of a well-formed entity; "&nonsense;" stays as it is."""
    if entity[0][1] == "#" or entity[0][1:] in html5:
        return html.unescape(entity[0])
    return entity[0]
