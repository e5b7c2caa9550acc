"""HTTP, and nothing but HTTP. The only floor that knows FastAPI."""
