"""ONNX files.

onnx      write a model as ONNX and compare it with PyTorch
quantize  float16 and int8 variants
label_output labels computed inside an ONNX file

Imports `core`, `models` and `inference`. Only the export stage uses it.
"""
