"""Scores of a model on test images.

scores         run the model and count, image by image
statistics     intervals, and whether one run is better than another
boundary       boundary IoU
object_recall  which objects are found, by size
calibration    whether confidence equals accuracy
label_errors   annotations that are probably wrong
examples       images for the report
plots          CSV files for DVC's plots

Imports `core`, `coco` and `inference`.
"""
