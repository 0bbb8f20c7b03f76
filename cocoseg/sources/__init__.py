"""Where annotations and images come from (download, images).

source    what a source is, which one params.yaml names, and an image folder brought up to date
coco      COCO's own server, or a mirror of its layout
files     people's own photos and annotation files
exports   what labelling tools export, as one COCO instances file
photos    which file of a folder an annotation file means
transfer  files from HTTP(S) and file:// addresses, whatever the server does on the way
attempt   one try at a file: what went wrong, and whether to try again
sample    the built-in sample, drawn on the spot: a package that few need to open

Uses `common` and `annotations`; only the stages download and images use it.
"""
