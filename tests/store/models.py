"""Folders that look like models to a store, which reads names and digests only."""

from datetime import date
from pathlib import Path
from typing import Any

CARD: dict[str, Any] = {
    "language": "en",
    "licence": "Apache-2.0",
    "base": "nothing",
    "training_data": "three pairs",
    "created": date(2026, 1, 2),
}


def write_model(folder: Path, *, weights: bytes = b"weights") -> Path:
    """A transformers folder, and beside it what must not be published."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "vocab.txt", "spiece.model", "README.md"):
        (folder / name).write_text(f"the {name}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    for name in ("pytorch_model.bin", "training_args.bin", "modeling.py", "trainer_state.json", ".hidden"):
        (folder / name).write_text("no", encoding="utf-8")
    (folder / "checkpoint-1").mkdir(exist_ok=True)
    return folder
