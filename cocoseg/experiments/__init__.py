"""Runs as Git revisions: commits, branches, tags and experiments.

revisions       files of a revision; the only module that imports internals of DVC and Git
runs            `cocoseg runs` and `cocoseg label-errors`
compare         `cocoseg compare`
search_space    the values to try of `cocoseg search`
search          `cocoseg search`
search_results  its results as text and as a page

Imports `core`, `params`, `evaluation`, `inference`, `training` and `reports`. No stage imports it.
"""
