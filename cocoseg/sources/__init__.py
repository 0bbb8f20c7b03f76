"""Where annotations and images come from.

source       what a source is, which one params.yaml names, and updating the image directory
coco_server  COCO's own server, or a mirror with its layout
local_files  your own images and annotation files
exports      the files that labeling tools export, merged into one COCO file
matching     which image file an annotation file means
transfer     files from HTTP(S) and file:// URLs
retry        one try at a file: what failed, and whether to retry
synthetic    the built-in sample, drawn locally

Imports `core`, `params` and `coco`.
"""
