"""ONNX files.

onnx          write a model as ONNX and compare it with PyTorch
label_output  labels computed inside an ONNX file
quantize      float16 and int8 variants

Imports `core`, `models` and `inference`. Only the export stage uses it.
"""
