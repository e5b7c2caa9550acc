"""What a version of a model says of itself: manifest.json."""

from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

FILE = "manifest.json"
NAME = r"[a-z0-9][a-z0-9._-]*"


class StoreError(Exception):
    """A model cannot be found, trusted or published; the message is one line for a person."""


class Manifest(BaseModel):
    """A model version: where it comes from, how it is used, and the SHA-256 of every file of its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{NAME}$")
    version: int = Field(ge=1)
    language: str
    licence: str
    base: str
    training_data: str
    created: date
    task_prefix: str = ""
    max_source_tokens: int | None = Field(None, ge=1)
    decoding: dict[str, Any] = {}  # what it overrides of generation_config.json
    scores: dict[str, Any] = {}
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"{name!r} is not inside the folder")
        return files

    @classmethod
    def read(cls, file: Path) -> "Manifest":
        """The manifest in `file`. Raises StoreError."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, problem["loc"]))
            raise StoreError(f"{file} is damaged: {place or 'file'}: {problem['msg']}") from error
