"""The COCO format, without PyTorch.

instances   schema, reading and validation of instances files
bounds      positions of annotations, also of invalid ones
rejections  reasons why images and annotations are rejected
rasterize   annotations to masks
contours    masks to polygons
writer      masks to a COCO file

Imports `core`.
"""
