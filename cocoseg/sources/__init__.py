"""Sources of annotations, images and initial weights.

source       the interface of a source, the choice of one, and updating `data/images`
coco_server  COCO's server, or a mirror with its layout
local_files  your own images and annotation files
exports      merging the files of labeling tools into one COCO file
matching     matching file names in annotation files with image files
transfer     fetching files from HTTP(S) and file:// URLs
dvc_cache    images of earlier runs in DVC's cache
retry        one attempt to fetch a file: what failed, and whether to retry
synthetic    the built-in sample, drawn locally
commits      files of other commits, and the file from which training starts

Imports `core`, `params` and `coco`.
"""
