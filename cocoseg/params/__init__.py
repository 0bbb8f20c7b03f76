"""The sections of params.yaml, a module for each, and the reader.

reader    the base class of sections; reads and checks a file
download  where annotations and images come from
filter    which images and annotations are selected
mask      how annotations become masks
split     how images are divided
train     the network and its training
evaluate  how the model is scored
export    which ONNX files are written
report    the title of the report
runtime   settings of the machine, which change no result

Imports `core`.
"""
