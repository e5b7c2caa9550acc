"""Measurements, side by side in one run: the engine against its rivals, a running service against the engine."""

import app.engine  # noqa: F401 - before torch, so that OpenMP waits here as it does in the service
