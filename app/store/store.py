"""The models of a folder, <name>/<version>/: found, trusted, and published whole or not at all."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from app.store.manifest import FILE, NAME, Manifest, StoreError

__all__ = ["Store", "StoreError", "parse"]

# What a transformers folder of a model needs, and no pickle.
PUBLISHED = ("*.json", "*.safetensors", "*.model", "*.txt", "README.md")
CHECKED = ("*.json", "*.safetensors")  # of these no file may be there that the manifest does not know


def parse(reference: str) -> tuple[str, int | None] | None:
    """`name` or `name@version` as its parts; None for what can only be a folder or a hub id."""
    found = re.fullmatch(f"({NAME})(?:@([1-9][0-9]*))?", reference)
    return (found[1], int(found[2]) if found[2] else None) if found else None


class Store:
    """The models below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self) -> list[Manifest]:
        """Every complete version, by name and number."""
        manifests = [Manifest.read(folder / FILE) for folder in self._folders("*")]
        return sorted(manifests, key=lambda manifest: (manifest.name, manifest.version))

    def resolve(self, reference: str) -> Path:
        """The folder of `name` (its newest version), `name@version`, a folder, or a hub id. Raises StoreError."""
        parts = parse(reference)
        folders = {int(folder.name): folder for folder in self._folders(parts[0])} if parts else {}
        if parts and folders:
            version = parts[1] or max(folders)
            if version not in folders:
                there = ", ".join(map(str, sorted(folders)))
                raise StoreError(f"{parts[0]} has no version {version} in {self.root}; it has {there}")
            return folders[version]
        if Path(reference).is_dir():
            return Path(reference)
        return _from_hub(reference, self.root)

    def verify(self, folder: Path) -> Manifest | None:
        """The manifest of `folder`, every file checked against it; None if it has none. Raises StoreError."""
        if not (folder / FILE).exists():
            return None
        manifest = Manifest.read(folder / FILE)
        for name, expected in manifest.files.items():
            if not (folder / name).is_file():
                raise StoreError(f"{folder / name} is missing")
            if _sha256(folder / name) != expected:
                raise StoreError(f"{folder / name} is not what its manifest says: SHA-256 differs")
        for file in _matching(folder, CHECKED):
            if file.name not in manifest.files and file.name != FILE:
                raise StoreError(f"{file} is not in its manifest")
        return manifest

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
        decoding: dict[str, Any] | None = None,
        scores: dict[str, Any] | None = None,
    ) -> Path:
        """The model in `source` as the next version of `name`, which appears all at once. Raises StoreError."""
        if not re.fullmatch(NAME, name):
            raise StoreError(f"{name!r} is not a name: small letters, digits, '.', '_', '-'")
        files = list(_matching(source, PUBLISHED))
        if not any(file.suffix == ".safetensors" for file in files):
            raise StoreError(f"{source} has no *.safetensors (pickled weights are not published)")
        try:
            (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root / name, prefix=".half-written-") as aside:
                half = Path(aside) / "version"
                half.mkdir()
                for file in files:
                    shutil.copyfile(file, half / file.name)
                manifest = Manifest(
                    name=name,
                    version=1,
                    language=language,
                    licence=licence,
                    base=base,
                    training_data=training_data,
                    created=created,
                    task_prefix=task_prefix,
                    max_source_tokens=max_source_tokens,
                    decoding=decoding or {},
                    scores=scores or {},
                    files={file.name: _sha256(half / file.name) for file in files},
                )
                return self._rename(half, manifest)
        except OSError as error:
            raise StoreError(f"cannot publish to {self.root}: {error}") from error

    def _rename(self, half: Path, manifest: Manifest) -> Path:
        """Give the finished folder the next free number."""
        place = self.root / manifest.name
        version = max((int(folder.name) for folder in self._folders(manifest.name)), default=0)
        while True:
            version += 1
            numbered = manifest.model_copy(update={"version": version})
            (half / FILE).write_text(numbered.model_dump_json(indent=2) + "\n", encoding="utf-8")
            for file in half.iterdir():
                _fsync(file)
            _fsync(half)
            try:
                half.rename(place / str(version))
            except OSError:
                if not (place / str(version)).exists():
                    raise
                continue  # somebody else was first with this number
            _fsync(place)
            return place / str(version)

    def _folders(self, name: str) -> Iterator[Path]:
        """The folders of complete versions."""
        for file in sorted(self.root.glob(f"{name}/*/{FILE}")):
            if re.fullmatch("[1-9][0-9]*", file.parent.name):
                yield file.parent


def _from_hub(reference: str, root: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(reference, allow_patterns=list(PUBLISHED)))
    except Exception as error:  # many kinds, of network, names and rights; all mean the same here
        tried = f"not in {root}, not a folder, and not to be had from the hub ({type(error).__name__})"
        raise StoreError(f"no model {reference!r}: {tried}") from error


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    names = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    yield from sorted(file for file in names if file.name != FILE)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
