"""Every knob of the service: its unit, its bounds and a sentence. The only reader of the environment."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "HEADLINE_"


class SettingsError(Exception):
    """A setting is unknown or has a value it cannot have; the message is one line for a person."""


class Settings(BaseSettings):
    """Each field is an environment variable (HEADLINE_MODEL) and a flag of `headline serve` (--model)."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    model: str = Field("press-en", description="The model: a name in the store, name@version, a folder, or a hub id.")
    model_store: Path = Field(Path("model_store"), description="The folder of models, <name>/<version>/.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$",
        description="Where the model runs: auto, cpu, cuda, cuda:N or mps.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="What it multiplies in; auto is bfloat16 on CUDA and on processors that have it, else float32.",
    )
    quantize: Literal["none", "int8"] = Field(
        "none", description="int8: weights and products in 8 bits; for x86 processors, faster and slightly coarser."
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens in one batch, padding counted: an article's own and those of all its beams at full length; "
        "unset it is 8192, on CUDA what the free memory at the start allows.",
    )
    max_waiting: int = Field(256, ge=1, description="Requests that may wait; one more is answered with 429.")
    max_delay_ms: int = Field(
        0, ge=0, le=1000, description="How long a free model waits for company for the oldest request (milliseconds)."
    )
    request_timeout_ms: int = Field(
        30_000, ge=1, description="How long a request may take before it is answered with 504 (milliseconds)."
    )
    max_body_bytes: int = Field(2_000_000, ge=1, description="The longest request body (bytes).")
    max_article_chars: int = Field(200_000, ge=1, description="The longest article (characters).")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys of which a request must bear one, separated by commas; none means open to all."
    )
    api_keys_file: Path | None = Field(None, description="A file with more such keys, one a line.")
    metrics_open: bool = Field(False, description="Whether /metrics needs no key where keys are set.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one and logs it.")
    log_format: Literal["text", "json"] = Field("text", description="How log lines look.")
    shutdown_grace_s: float = Field(
        30.0, ge=0, description="How long accepted requests may take to be answered after SIGTERM (seconds)."
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys = [key.strip() for key in value.split(",") if key.strip()]
        if value and not keys:
            raise ValueError("no key in it; leave it unset for a service open to all")
        return keys

    def keys(self) -> frozenset[str]:
        """All API keys, from the setting and from the file. Raises SettingsError if the file cannot be read."""
        keys = {key.get_secret_value() for key in self.api_keys}
        if self.api_keys_file is None:
            return frozenset(keys)
        try:
            lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"api_keys_file: cannot read {self.api_keys_file}: {error}") from error
        in_file = {line.strip() for line in lines if line.strip()}
        if not in_file:
            raise SettingsError(f"api_keys_file: {self.api_keys_file} has no key in it")
        return frozenset(keys | in_file)


def read_settings(**given: Any) -> Settings:
    """The settings from the environment, with those `given` first. Raises SettingsError."""
    _refuse_misspelt()
    try:
        return Settings(**given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"][:1])
        raise SettingsError(f"{name}: {problem['msg']}") from error


def _refuse_misspelt() -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"unknown setting {name}{hint}")
