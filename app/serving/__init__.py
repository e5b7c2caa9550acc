"""Requests become batches, batches become headlines."""
