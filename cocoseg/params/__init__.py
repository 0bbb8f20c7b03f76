"""The sections of params.yaml, one module for each stage that has one, and the reader.

reader    the base class of sections, and reading a whole file
download  where annotations and images come from
filter    which images and annotations are selected
mask      how annotations become masks
split     how images are divided
train     the network and its training
evaluate  how the model is scored
export    which ONNX files are written
report    how the report is titled
runtime   the machine: no result depends on it

Imports `core`.
"""
