"""The data page: the selected data before training, without PyTorch.

measure     statistics of the selected images, annotations and masks
warnings    data warnings
galleries   examples of each class and of each reason for rejection, near-duplicates
thumbnails  drawings of valid and invalid annotations
page        the HTML page
"""
