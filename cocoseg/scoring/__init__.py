"""Scores of a trained model on test images, and pictures of what it does (evaluate).

evaluation   run the model on the test images and count, image by image
comparison   how sure scores are, and whether one run is better than another
boundary     how well outlines are met
objects      which objects are found, by size
calibration  whether the network is right as often as it says
suspects     annotations that the model disagrees with
examples     test images and suspects to look at
plots        what DVC plots, as CSV files

Uses `common`, `annotations` and `network`.
"""
