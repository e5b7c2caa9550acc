import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.store.manifest import FILE, Manifest, StoreError

DIGEST = "0123456789abcdef" * 4
FIELDS: dict[str, Any] = {
    "name": "press-en",
    "version": 1,
    "language": "en",
    "licence": "Apache-2.0",
    "base": "nothing",
    "training_data": "three pairs",
    "created": "2026-01-02",
    "files": {"config.json": DIGEST, "deep/er/model.safetensors": DIGEST},
}


def write(folder: Path, **changes: Any) -> Path:
    (folder / FILE).write_text(json.dumps(FIELDS | changes), encoding="utf-8")
    return folder


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path))
    assert manifest.created == date(2026, 1, 2)
    assert (manifest.task_prefix, manifest.max_source_tokens, manifest.decoding, manifest.scores) == ("", None, {}, {})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path, decoding={"num_beams": 2}, scores={"macro": {"rougeL": 42.6}}))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_manifest_does_not_change(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path))
    with pytest.raises(ValidationError):
        manifest.version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Press"},
        {"name": "-press"},
        {"name": "../press"},
        {"name": "press\n"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"language": ""},
        {"created": "yesterday"},
        {"max_source_tokens": 0},
        {"files": {"config.json": "ABC"}},
        {"surprise": 1},
        {"licence": None},
    ],
)
def test_a_wrong_value_names_the_file_and_the_field(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=rf"manifest\.json is damaged: {next(iter(changes))}") as error:
        Manifest.read(write(tmp_path, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a/..",
        "..",
        ".",
        "",
        "./a",
        "a//b",
        "a/",
        "a\\..\\b",
        "a\0b",
        "manifest.json",
    ],
)
def test_no_file_lies_outside(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="is no path of a file in the version's folder"):
        Manifest.read(write(tmp_path, files={path: DIGEST}))


@pytest.mark.parametrize("content", [b"", b'{"name": "pr', b"[]", b"\xff\xfe", b"null"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError) as error:
        Manifest.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / FILE} is damaged: ")
    assert "\n" not in str(error.value)


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*manifest\.json: No such file"):
        Manifest.read(tmp_path)
