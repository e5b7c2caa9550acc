"""Measurements, side by side in one run: the engine against generate(), a running service against the engine."""
