"""How log lines look: text for people, JSON for collectors. Never a word of an article."""

import logging
from typing import Literal

from pythonjsonlogger.json import JsonFormatter


def set_up(style: Literal["text", "json"]) -> None:
    """Send all logs to stderr in `style`."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter("{asctime}{levelname}{name}{message}", style="{", rename_fields={"asctime": "time"})
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("httpx", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
