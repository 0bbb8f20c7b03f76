"""Evaluation of a model on the test images.

scores          predict the test images, count and score
class_matching  scores of any model, with classes matched by name
statistics      confidence intervals, comparison of runs
boundary        boundary IoU
object_recall   recall of objects by size
calibration     confidence and accuracy
label_errors    annotations that are likely wrong
examples        example images for the report
plots           CSV files for `dvc plots`

Imports `core`, `coco` and `inference`.
"""
