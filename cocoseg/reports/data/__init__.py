"""The data page: the selected data before training, without PyTorch.

measure     counts, sizes, positions, overlaps
warnings    data warnings in words
galleries   example images of each class, and of each reason for rejection
thumbnails  drawings of annotations, invalid ones too
page        the page
"""
