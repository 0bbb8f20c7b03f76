"""The COCO format, without PyTorch.

instances   schema, reading and validation of instances files
rejections  reasons why images and annotations are rejected
rasterize   annotations to masks
writer      masks to a COCO file

Imports `core`.
"""
