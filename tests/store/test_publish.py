import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.store import store as store_module
from app.store.store import Store, StoreError, verify
from tests.store.models import CARD, write_model

HERE = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "source")


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_standard_files_are_published(root: Path, source: Path) -> None:
    folder = Store(root).publish(source, name="press", max_source_tokens=64, decoding={"num_beams": 2}, **CARD)
    assert folder == root / "press/1"
    published = "config.json generation_config.json model.safetensors README.md spiece.model tokenizer.json vocab.txt"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *published.split()}
    manifest = verify(folder)
    assert manifest is not None
    assert set(manifest.files) == set(published.split())
    assert (manifest.max_source_tokens, manifest.decoding, manifest.licence) == (64, {"num_beams": 2}, "Apache-2.0")
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_published_version_can_be_published_again(root: Path, source: Path) -> None:
    store = Store(root)
    store.publish(source, name="press", **CARD)
    folder = store.publish(store.resolve("press"), name="press", **CARD)
    manifest = verify(folder)
    assert manifest is not None
    assert manifest.version == 2


def test_a_version_is_readable_as_the_umask_says(root: Path, source: Path) -> None:
    (source / "model.safetensors").chmod(0o400)
    folder = Store(root).publish(source, name="press", **CARD)
    plain = root / "plain"
    plain.mkdir()
    assert folder.stat().st_mode == plain.stat().st_mode
    assert (folder / "model.safetensors").stat().st_mode & 0o200


def test_a_number_is_never_given_twice(root: Path, source: Path) -> None:
    (root / "press/6").mkdir(parents=True)  # somebody copies by hand
    (root / "press/7").write_text("or leaves a file")
    assert Store(root).publish(source, name="press", **CARD) == root / "press/8"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_what_is_no_model_is_refused(root: Path, source: Path, missing: str) -> None:
    (source / missing).unlink()
    with pytest.raises(StoreError, match="has no "):
        Store(root).publish(source, name="press", **CARD)
    assert not root.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../press"},
        {"name": "press@2"},
        {"name": ""},
        {"language": ""},
        {"max_source_tokens": 0},
        {"licence": 1},
    ],
)
def test_a_wrong_card_is_refused_before_anything_is_written(root: Path, source: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=f"cannot publish .*: {next(iter(changes))}: "):
        Store(root).publish(source, **({"name": "press"} | CARD | changes))
    assert {path.name for path in root.parent.iterdir()} == {"source"}


@pytest.mark.parametrize("step", ["copy", "sha256", "sync"])
@pytest.mark.parametrize("earlier", [0, 1])
def test_a_full_disk_leaves_nothing(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, step: str, earlier: int
) -> None:
    store = Store(root)
    for _ in range(earlier):
        store.publish(source, name="press", **CARD)
    before = everything(root)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, step, full)
    with pytest.raises(StoreError, match=r"cannot publish 'press' in .*: No space left on device"):
        store.publish(source, name="press", **CARD)
    assert everything(root) == before


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS, errno.EXDEV])
def test_a_rename_that_fails_is_not_tried_for_ever(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    failures = iter([OSError(error, os.strerror(error))])

    def fail(*_: Any) -> None:
        raise next(failures)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match=f"cannot publish 'press' in .*: {os.strerror(error)}"):
        Store(root).publish(source, name="press", **CARD)
    assert everything(root) == []


@pytest.mark.parametrize("error", [errno.EEXIST, errno.ENOTEMPTY])
def test_a_number_that_another_publisher_takes_first_is_passed_over(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    rename = os.rename

    def lose(aside: Path, target: Path) -> None:
        if target.name == "1":
            raise OSError(error, os.strerror(error))
        rename(aside, target)

    monkeypatch.setattr(os, "rename", lose)
    folder = Store(root).publish(source, name="press", **CARD)
    manifest = verify(folder)
    assert manifest is not None
    assert (folder.name, manifest.version) == ("2", 2)


def test_an_interrupt_leaves_nothing(root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(root).publish(source, name="press", **CARD)
    assert everything(root) == []


def test_a_root_that_cannot_be_written_is_one_clear_line(tmp_path: Path, source: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot publish 'press' in .*: Not a directory"):
        Store(tmp_path / "file").publish(source, name="press", **CARD)

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(StoreError, match=r"cannot publish 'press' in .*: Read-only file system"):
        Store(tmp_path / "models").publish(source, name="press", **CARD)


KILLED = """
import os, sys
from pathlib import Path
from app.store.store import Store
from tests.store.models import CARD
os.rename = lambda *_: os._exit(9)
Store(Path(sys.argv[1])).publish(Path(sys.argv[2]), name="press", **CARD)
"""


def test_a_process_killed_before_the_rename_leaves_no_version(root: Path, source: Path) -> None:
    store = Store(root)
    killed = subprocess.run([sys.executable, "-c", KILLED, root, source], check=False, cwd=HERE)
    assert killed.returncode == 9
    assert any(name.endswith("/model.safetensors") for name in everything(root))  # it was copied
    assert store.versions() == []
    with pytest.raises(StoreError, match="is no model in"):
        store.resolve("press@1")
    assert store.publish(source, name="press", **CARD) == root / "press/1"
    assert [manifest.version for manifest in store.versions()] == [1]


def test_publishers_that_race_get_a_number_each(root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishers = 4
    barrier = threading.Barrier(publishers)
    first = threading.local()
    number_of = store_module._taken

    def taken(home: Path) -> list[int]:
        numbers = number_of(home)
        if not getattr(first, "gone", False):
            first.gone = True
            barrier.wait(timeout=30)  # all have seen the same numbers
        return numbers

    monkeypatch.setattr(store_module, "_taken", taken)
    with ThreadPoolExecutor(publishers) as pool:
        publishing = [pool.submit(Store(root).publish, source, name="press", **CARD) for _ in range(publishers)]
        folders = [each.result() for each in publishing]
    monkeypatch.undo()
    assert sorted(folder.name for folder in folders) == ["1", "2", "3", "4"]
    for folder in folders:
        manifest = verify(folder)
        assert manifest is not None
        assert str(manifest.version) == folder.name
    assert sorted(path.name for path in (root / "press").iterdir()) == ["1", "2", "3", "4"]


def test_the_store_knows_no_torch() -> None:
    code = (
        "import sys, app.store.store; sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=HERE).returncode == 0
