"""Tokens in, candidates out. The only floor that knows torch's inference side."""
