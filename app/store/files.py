"""The files of a model on disk: which they are, their digests, copies that outlast a power cut. Knows no versions."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from uuid import uuid4

from app.store.manifest import StoreError

CARD = "README.md"
WEIGHTS = "*.safetensors"
# What transformers reads of a model, from disk or from the hub. No pickles, no code.
STANDARD = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.safetensors.index.json",
    WEIGHTS,
)


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The files directly in the folder whose names match one of the patterns."""
    files = (path for path in folder.iterdir() if path.is_file())
    return sorted(path for path in files if any(fnmatchcase(path.name, pattern) for pattern in patterns))


def files_of(source: Path) -> list[Path]:
    """What of a transformers folder is published; raises StoreError if that would be no model."""
    if not (source / "config.json").is_file():
        raise StoreError(f"{source} is no transformers folder: it has no config.json")
    if not matching(source, WEIGHTS):
        raise StoreError(f"{source} has no safetensors, and pickled weights are not published")
    return matching(source, CARD, *STANDARD)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Copy the content, but not the permissions: sources are read-only at times."""
    shutil.copyfile(source, target)
    sync(target)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder beside `target` to write into, which becomes `target` at once if all goes well, or else goes."""
    aside = target.with_name(f".incoming-{uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.iterdir(), aside]:
            sync(path)
        os.rename(aside, target)
        sync(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # gone already where all went well


@contextmanager
def gone_if_empty(folder: Path) -> Iterator[None]:
    """In the end the folder goes if there is nothing in it."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def sync(path: Path) -> None:
    """Have the disk write what it holds back of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
