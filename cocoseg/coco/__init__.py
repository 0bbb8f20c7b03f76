"""The COCO format, without PyTorch.

instances   the schema of an instances file: read and validate it
rejections  why an image or annotation is not used
rasterize   annotations to masks
writer      masks to a COCO file

Imports `core`.
"""
