"""HTML pages and tables of results.

html     the frame of every page, and charts
run      the report of a run
data     the data page: a package without PyTorch
summary  the scores as text, printed by `make repro`

Imports `core`, `coco` and `curation`.
"""
