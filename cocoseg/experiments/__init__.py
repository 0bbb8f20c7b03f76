"""Comparing runs: commits, branches, tags and experiments.

revisions  read the results of a revision (the only module that uses DVC's and Git's internals)
runs       `cocoseg runs` and `cocoseg label-errors`
compare    `cocoseg compare`

Imports every package but `sources` and `training`. No stage uses it.
"""
