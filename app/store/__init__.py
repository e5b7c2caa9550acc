"""Where models come from: a folder of versions that appear whole and never change."""
