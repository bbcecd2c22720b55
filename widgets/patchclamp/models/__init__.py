"""Where a live model comes from: the catalogue, the cache, and what wraps a loaded model."""
