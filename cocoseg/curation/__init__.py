"""From all annotations to a dataset with splits, without PyTorch.

classes          classes and the categories that they consist of
exclusions       images and annotations that a user excludes
selection        choosing images and annotations
selection_log    warnings about a selection
near_duplicates  finding images that are nearly the same
groups           images that must share a split
splits           division into train, val and test

Imports `core` and `coco`.
"""
