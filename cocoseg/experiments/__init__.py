"""Runs as Git revisions: commits, branches, tags and experiments.

revisions  files of a revision; the only module that imports internals of DVC and Git
runs       `cocoseg runs` and `cocoseg label-errors`
compare    `cocoseg compare`

Imports `core`, `evaluation`, `inference` and `reports`. No stage imports it.
"""
