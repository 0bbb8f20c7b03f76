"""From all annotations to a data set in splits, without PyTorch.

classes          the classes and their categories
selection        choose images and annotations
near_duplicates  find images that are nearly the same
groups           images that must share a split
splits           divide images into train, val and test

Imports `core` and `coco`.
"""
