"""Modules that every stage uses.

errors    exceptions whose message is for the user
files     files and directories that appear only when complete; safe file names
images    image files: validation, size and pixels
drawing   masks drawn over images, errors, example panels
labels    masks: label values, colors and files
parallel  a function applied to many items in several processes
progress  progress of long work, on a terminal and in a log
seeding   random draws that depend on a seed and a purpose
stage     logging, error messages and machine figures of a stage
values    plain values for JSON; YAML as DVC reads it

Imports no other package. A change here reruns every stage.
"""
