"""Steps of your own on the way of a row, a dependency of preprocess: see docs/data.md."""
