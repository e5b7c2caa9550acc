import errno
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from app.store import store as store_module
from app.store.manifest import FILE
from app.store.store import Store, StoreError, parse, verify
from tests.store.models import CARD, write_model


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of `press`, one of `other`, and what is no version."""
    folder = tmp_path_factory.mktemp("published")
    root = folder / "models"
    for name in ("press", "press", "other", "press"):
        Store(root).publish(write_model(folder / "source"), name=name, **CARD)
    write_model(root / "press" / "4")  # no manifest: copied by hand, and not to the end
    for junk in ("press/.incoming-1/manifest.json", "press/05/manifest.json", "press/new/manifest.json"):
        (root / junk).parent.mkdir()
        (root / junk).write_text("{}")
    (root / "press" / "9").write_text("a file")
    (root / "README.md").write_text("# models")
    (root / "Upper").mkdir()
    return folder


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    """What was published, to damage it."""
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "models")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("a long story\nof the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [("press-en", ("press-en", None)), ("t5.v1_1@12", ("t5.v1_1", 12)), ("1@1", ("1", 1))],
)
def test_parse(reference: str, parsed: tuple[str, int | None]) -> None:
    assert parse(reference) == parsed


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "@1",
        "a@",
        "a@0",
        "a@01",
        "a@-1",
        "a@1.0",
        "a@x",
        "a@1@2",
        "../x@1",
        "a/b",
        "A",
        ".a",
        "a\n",
        "a@²",
        "a@" + "9" * 5000,
    ],
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(StoreError, match="neither a name nor name@version"):
        parse(reference)


def test_versions_are_the_complete_ones_in_order(store: Store) -> None:
    versions = [(manifest.name, manifest.version) for manifest in store.versions()]
    assert versions == [("other", 1), ("press", 1), ("press", 2), ("press", 3)]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for _ in range(11):
        store.publish(write_model(tmp_path / "source"), name="press", **CARD)
    assert [manifest.version for manifest in store.versions()] == list(range(1, 12))
    assert store.resolve("press").name == "11"


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Store(tmp_path / "nowhere").versions() == []


@pytest.mark.parametrize("place", ["other/3", "press/7"])
def test_a_version_in_a_wrong_place_is_named(store: Store, tmp_path: Path, place: str) -> None:
    (tmp_path / "models/press/3").rename(tmp_path / "models" / place)
    wrong = rf"{place}/manifest\.json is that of press@3"
    with pytest.raises(StoreError, match=wrong):
        store.versions()
    with pytest.raises(StoreError, match=wrong):
        store.resolve(place.replace("/", "@"))
    with pytest.raises(StoreError, match=wrong):
        store.resolve(place.split("/")[0])


def test_a_version_elsewhere_keeps_its_name(store: Store, tmp_path: Path) -> None:
    elsewhere = (tmp_path / "models/press/3").rename(tmp_path / "copied")
    manifest = verify(store.resolve(str(elsewhere)))
    assert manifest is not None
    assert (manifest.name, manifest.version) == ("press", 3)


def test_a_damaged_manifest_is_named_and_harms_no_other_model(store: Store, tmp_path: Path) -> None:
    (tmp_path / "models/press/2" / FILE).write_text('{"name": "pre')
    with pytest.raises(StoreError, match=r"press/2/manifest\.json is damaged"):
        store.versions()
    assert store.resolve("other") == tmp_path / "models/other/1"


@pytest.mark.parametrize(
    ("reference", "folder"),
    [("press", "press/3"), ("press@1", "press/1"), ("press@3", "press/3"), ("other", "other/1")],
)
def test_a_name_is_found_in_the_store(store: Store, tmp_path: Path, reference: str, folder: str) -> None:
    assert store.resolve(reference) == tmp_path / "models" / folder


@pytest.mark.parametrize("version", [4, 5, 9, 12])
def test_a_version_that_is_not_complete_is_not_found(store: Store, version: int) -> None:
    with pytest.raises(StoreError, match=rf"press has no version {version}; there is 1, 2, 3$"):
        store.resolve(f"press@{version}")


def test_a_path_is_a_path(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_model(tmp_path / "elsewhere"))
    write_model(tmp_path / "x@1")
    write_model(tmp_path / "elsewhere/press")
    assert store.resolve("../x@1") == Path("../x@1")
    assert store.resolve(str(tmp_path / "source")) == tmp_path / "source"
    assert store.resolve(".") == Path()
    assert store.resolve("press") == tmp_path / "models/press/3"  # the store first
    assert store.resolve("./press") == Path("press")


@pytest.mark.parametrize(
    "reference", ["", " ", "nobody", "nobody@1", "../nobody@1", "google/nobody", "press@x", "a\0b"]
)
def test_what_is_nowhere_is_one_clear_line(store: Store, reference: str) -> None:
    with pytest.raises(StoreError) as error:
        store.resolve(reference)
    assert "is no model in" in str(error.value)
    assert "no folder, and cannot be had from the Hugging Face hub (LocalEntryNotFoundError)" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_real_hub_client_refuses_a_path_without_asking_the_network(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(StoreError, match="HFValidationError"):
        store.resolve("../nobody@1")


def test_from_the_hub_come_only_files_that_run_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(reference: str, **options: Any) -> str:
        asked.update(options, reference=reference)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    write_model(tmp_path / "snapshot")
    assert store.resolve("google/headlines") == tmp_path / "snapshot"
    assert asked["reference"] == "google/headlines"
    kept = set(
        huggingface_hub.utils.filter_repo_objects(
            [
                "model.safetensors",
                "config.json",
                "spiece.model",
                "pytorch_model.bin",
                "model.py",
                "onnx/model.safetensors",
                "a.pkl",
            ],
            allow_patterns=asked["allow_patterns"],
            ignore_patterns=asked["ignore_patterns"],
        )
    )
    assert kept == {"model.safetensors", "config.json", "spiece.model"}

    (tmp_path / "snapshot/model.safetensors").unlink()
    with pytest.raises(StoreError, match="no safetensors"):
        store.resolve("google/headlines")


def test_a_version_is_verified(store: Store) -> None:
    manifest = verify(store.resolve("press"))
    assert manifest is not None
    assert (manifest.name, manifest.version) == ("press", 3)


def test_a_folder_without_a_manifest_cannot_be_verified(tmp_path: Path) -> None:
    assert verify(write_model(tmp_path / "source")) is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spiece.model", "README.md"])
def test_a_changed_byte_is_found(store: Store, name: str) -> None:
    folder = store.resolve("press")
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError, match=rf"press/3/{name} has changed"):
        verify(folder)


def test_a_missing_file_is_found(store: Store) -> None:
    folder = store.resolve("press")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match=r"press/3/tokenizer\.json is missing"):
        verify(folder)


@pytest.mark.parametrize("name", ["extra.safetensors", "chat_template.json", "merges.txt", "other.model"])
def test_a_file_that_was_added_is_found(store: Store, name: str) -> None:
    folder = store.resolve("press")
    (folder / name).write_text("{}")
    with pytest.raises(StoreError, match=rf"press/3/{name} is not in the manifest"):
        verify(folder)


def test_a_file_that_cannot_be_read_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(store_module, "sha256", broken)
    with pytest.raises(StoreError, match=r"^cannot read .*press/3/[A-Za-z_.]+: Input/output error$"):
        verify(store.resolve("press"))


def test_notes_beside_a_model_do_no_harm(store: Store) -> None:
    folder = store.resolve("press")
    (folder / "NOTES.md").write_text("good")
    (folder / "checkpoint.bin").write_text("never read")
    assert verify(folder) is not None


def test_verifying_names_a_damaged_manifest(store: Store) -> None:
    folder = store.resolve("press")
    (folder / FILE).write_text("{")
    with pytest.raises(StoreError, match=r"press/3/manifest\.json is damaged"):
        verify(folder)
