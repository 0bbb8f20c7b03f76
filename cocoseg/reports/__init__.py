"""HTML pages and tables of results.

html     page template and charts
run      the report of a run
data     the data page; does not import PyTorch
summary  the scores as text, printed by `make repro`

Imports `core`, `coco` and `curation`.
"""
