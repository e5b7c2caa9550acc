"""A service that writes headlines for articles, with encoder-decoder models, on your own machines."""
