"""Running networks on images, for training, evaluation, export and the public API.

dataset    samples (image and mask) as tensors
backends   PyTorch and ONNX Runtime behind one interface
tiling     large images in overlapping tiles
confusion  confusion matrices and scores
batches    load samples in batches and predict them
predictor  predict any image with a model file: `cocoseg.load`

Imports `core` and `models`.
"""
