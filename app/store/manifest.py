"""What a version of a model says of itself: its `manifest.json`. Knows no folders but the one it lies in."""

from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

FILE = "manifest.json"
NAME = r"[a-z0-9][a-z0-9._-]*"


class StoreError(Exception):
    """A model cannot be found, read or published; the message is one line for a human."""


def _inside(path: str) -> str:
    """The path, if it is relative, plain and leads nowhere out of the folder."""
    parts = PurePosixPath(path).parts
    plain = "/".join(parts) == path and "\\" not in path and "\0" not in path
    if not plain or not parts or parts[0] == "/" or ".." in parts or path == FILE:
        raise ValueError(f"{path!r} is no path of a file in the version's folder")
    return path


Inside = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(min_length=1)]


class Manifest(BaseModel):
    """One version of a model, and the SHA-256 of each of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    version: int = Field(ge=1)
    language: Line
    licence: Line
    base: Line
    training_data: Line
    created: date
    task_prefix: str = ""
    max_source_tokens: int | None = Field(None, ge=1)
    decoding: dict[str, Any] = {}  # overrides of generation_config.json
    scores: dict[str, Any] = {}
    files: dict[Inside, Sha256]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a version's folder; raises StoreError if it is missing or damaged."""
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            raise StoreError(f"{path} is damaged: {first_problem(error)}") from error

    def write(self, folder: Path) -> Path:
        path = folder / FILE
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else problem["msg"]
