"""What the selected data is like before anyone trains on it, without PyTorch (inspect).

statistics  counts, sizes, places, overlaps
oddities    what is odd about it, in words
examples    images to look at: of each class, and of each reason for dropping
thumbnails  small pictures of annotations, of broken ones too
page        all of it on one page

Uses `common`, `annotations`, and the pages beside it; only the stage inspect uses it.
"""
