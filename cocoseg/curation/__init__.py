"""From all annotations to a dataset with splits, without PyTorch.

selection        choosing images and annotations
near_duplicates  finding images that are nearly the same
groups           images that must share a split
splits           division into train, val and test

Imports `core` and `coco`.
"""
