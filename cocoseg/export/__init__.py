"""ONNX files of a model.

onnx      write them and check them against PyTorch
quantize  float16 and int8 variants

Imports `core`, `models` and `inference`. Only the export stage uses it.
"""
