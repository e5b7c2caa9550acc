"""Articles to measure with, from a JSONL file: one object a line, with the article under `text`."""

import json
from itertools import islice
from pathlib import Path


class ArticlesError(Exception):
    """The file holds no articles as they are expected; the message names the line."""


def read_articles(path: Path, most: int) -> list[str]:
    """The texts of the first `most` articles."""
    try:
        with path.open(encoding="utf-8") as lines:
            articles = [_text(path, number, line) for number, line in enumerate(islice(lines, most), 1)]
    except (OSError, UnicodeDecodeError) as error:
        raise ArticlesError(f"cannot read {path}: {error}") from error
    if not articles:
        raise ArticlesError(f"{path} is empty")
    return articles


def _text(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArticlesError(f"{path}, line {number}: expected a JSON object with a `text`") from error
    if not isinstance(text, str) or not text.strip():
        raise ArticlesError(f"{path}, line {number}: `text` is not a text")
    return text
