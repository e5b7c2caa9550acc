"""Pairs in, a new version in the store out."""
