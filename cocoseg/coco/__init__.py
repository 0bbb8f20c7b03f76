"""The COCO format, without PyTorch.

instances   the schema of an instances file: read and validate it
bounds      where annotations are, also invalid ones
rejections  why an image or annotation is not used
rasterize   annotations to masks
writer      masks to a COCO file

Imports `core`.
"""
