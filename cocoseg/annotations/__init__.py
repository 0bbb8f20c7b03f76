"""From a COCO instances file to selected images, splits and masks, without PyTorch.

instances   read and check a COCO instances file
selection   choose images and annotations (filter)
splits      divide images into train, val and test (split)
masks       paint annotations into label maps (mask)
duplicates  find photos that are nearly the same (split)
groups      which images belong into one split (split)
pictures    pictures of labels: overlays, errors, panels

Uses `common`. Stages download to inspect use it, and scoring of single objects; training does not.
Inspection, deployment and results use its pictures.
"""
