"""From COCO instance annotations to a trained, scored segmentation model: the library."""
