"""Finds, checks and publishes versions of models. Knows files only: no torch, no transformers."""

import errno
import os
import re
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from app.store.files import STANDARD, WEIGHTS, copy, files_of, gone_if_empty, matching, sha256, sync
from app.store.manifest import FILE, NAME, Manifest, StoreError, first_problem

__all__ = ["Manifest", "Store", "StoreError", "parse", "verify"]

NUMBER = re.compile(r"[1-9][0-9]{0,8}")
REFERENCE = re.compile(rf"({NAME})(?:@({NUMBER.pattern}))?")
TAKEN = {errno.EEXIST, errno.ENOTEMPTY}  # why a folder cannot be renamed to a version that is there


def parse(reference: str) -> tuple[str, int | None]:
    """The name and the version in `name` or `name@version`; raises StoreError for anything else."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise StoreError(f"{reference!r} is neither a name nor name@version (a-z, 0-9, '.', '_', '-'; a whole number)")
    return match[1], int(match[2]) if match[2] else None


def verify(folder: Path) -> Manifest | None:
    """The manifest of a folder whose files are as it says; None for a folder without one: nothing can be checked.

    Raises StoreError naming the file that is missing, has changed, or would be read without being in the manifest.
    """
    if not (folder / FILE).exists():
        return None
    manifest = Manifest.read(folder)
    try:
        _check(folder, manifest)
    except OSError as error:
        raise StoreError(f"cannot read {error.filename}: {error.strerror}") from error
    return manifest


def _check(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name} is missing")
        if sha256(folder / name) != digest:
            raise StoreError(f"{folder / name} has changed since it was published")
    for path in matching(folder, "*.json", *STANDARD):
        if path.name != FILE and path.name not in manifest.files:
            raise StoreError(f"{path} is not in the manifest")


class Store:
    """The folder of all models, `<root>/<name>/<version>/`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def versions(self) -> list[Manifest]:
        """All complete versions, by name and number; raises StoreError if a manifest is damaged or in a wrong place."""
        names = sorted(name for name in _names(self._root) if re.fullmatch(NAME, name))
        return [self._manifest(name, number) for name in names for number in self._numbers(name)]

    def resolve(self, reference: str) -> Path:
        """The folder of `name` (its newest version), of `name@version`, of a path, or of a model of the hub.

        Raises StoreError if it is none of these, or if a version's manifest is that of another. What comes from the hub
        is downloaded if its cache lacks it.
        """
        if REFERENCE.fullmatch(reference):
            name, version = parse(reference)
            numbers = self._numbers(name)
            if numbers:
                manifest = self._manifest(name, _choose(name, version, numbers))
                return self._root / name / str(manifest.version)
        if reference.strip() and Path(reference).is_dir():
            return Path(reference)
        return self._download(reference)

    def make_home(self, name: str) -> Path:
        """The folder for the versions of `name`, there and writable; raises StoreError, so that nothing is trained in
        vain."""
        if not re.fullmatch(NAME, name):
            raise StoreError(f"{name!r} is no name of a model (a-z, 0-9, '.', '_', '-')")
        home = self._root / name
        try:
            home.mkdir(parents=True, exist_ok=True)
            (trial := home / f".incoming-{uuid4().hex}").mkdir()
            trial.rmdir()
        except OSError as error:
            raise StoreError(f"cannot publish {name!r} in {self._root}: {error.strerror}") from error
        return home

    def publish(
        self,
        source: Path,
        *,
        name: str,
        language: str,
        licence: str,
        base: str,
        training_data: str,
        created: date,
        task_prefix: str = "",
        max_source_tokens: int | None = None,
        decoding: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> Path:
        """Copy a transformers folder into the store as the next version of `name`; the version's folder.

        It appears all at once, or not at all with a StoreError.
        """
        try:
            draft = Manifest(
                name=name,
                version=1,
                language=language,
                licence=licence,
                base=base,
                training_data=training_data,
                created=created,
                task_prefix=task_prefix,
                max_source_tokens=max_source_tokens,
                decoding=dict(decoding or {}),
                scores=dict(scores or {}),
                files={},
            )
            return self._publish(files_of(source), draft)
        except ValidationError as error:
            raise StoreError(f"cannot publish {name!r}: {first_problem(error)}") from error
        except OSError as error:
            raise StoreError(f"cannot publish {name!r} in {self._root}: {error.strerror}") from error

    def _publish(self, files: list[Path], draft: Manifest) -> Path:
        home = self._root / draft.name
        aside = home / f".incoming-{uuid4().hex}"
        with gone_if_empty(home):
            try:
                aside.mkdir(parents=True)
                for path in files:
                    copy(path, aside / path.name)
                digests = {path.name: sha256(aside / path.name) for path in files}
                return _appear(aside, draft.model_copy(update={"files": digests}))
            finally:
                shutil.rmtree(aside, ignore_errors=True)  # gone already where all went well

    def _manifest(self, name: str, number: int) -> Manifest:
        folder = self._root / name / str(number)
        manifest = Manifest.read(folder)
        if (manifest.name, manifest.version) != (name, number):
            raise StoreError(f"{folder / FILE} is that of {manifest.name}@{manifest.version}")
        return manifest

    def _numbers(self, name: str) -> list[int]:
        """The complete versions, oldest first."""
        home = self._root / name
        return sorted(number for number in _taken(home) if (home / str(number) / FILE).is_file())

    def _download(self, reference: str) -> Path:
        from huggingface_hub import snapshot_download  # slow to import, and seldom needed

        nowhere = f"{reference!r} is no model in {self._root}, no folder, and cannot be had from the Hugging Face hub"
        try:
            folder = Path(snapshot_download(reference, allow_patterns=list(STANDARD), ignore_patterns=["*/*"]))
        except Exception as error:  # whatever it is, network or name, the model is not to be had
            raise StoreError(f"{nowhere} ({type(error).__name__})") from error
        if not matching(folder, WEIGHTS):
            raise StoreError(f"{reference!r} has no safetensors on the Hugging Face hub, and nothing else is read")
        return folder


def _choose(name: str, version: int | None, numbers: list[int]) -> int:
    if version is not None and version not in numbers:
        raise StoreError(f"{name} has no version {version}; there is {', '.join(map(str, numbers))}")
    return version or numbers[-1]


def _names(folder: Path) -> list[str]:
    """What lies in a folder; nothing where there is no such folder."""
    try:
        return os.listdir(folder) if folder.is_dir() else []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error


def _taken(home: Path) -> list[int]:
    return [int(name) for name in _names(home) if NUMBER.fullmatch(name)]


def _appear(aside: Path, draft: Manifest) -> Path:
    """Number the complete folder and rename it to its number, the next one that nobody else takes first."""
    number = max(_taken(aside.parent), default=0) + 1
    while True:
        sync(draft.model_copy(update={"version": number}).write(aside))
        sync(aside)
        target = aside.with_name(str(number))
        try:
            os.rename(aside, target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            number += 1
        else:
            sync(aside.parent)
            return target
