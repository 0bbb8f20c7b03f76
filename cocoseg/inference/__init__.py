"""Running a network on images: what training, evaluation and export share.

dataset    samples (image and mask) as tensors
backends   PyTorch and ONNX Runtime behind one interface
tiling     large images in overlapping tiles
confusion  confusion matrices and the scores made from them
batches    samples in batches: load, predict, count
predictor  a model file and an image, nothing else: `cocoseg.load`

Imports `core` and `models`.
"""
