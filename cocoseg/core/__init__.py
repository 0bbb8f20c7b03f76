"""What every stage uses.

errors    exceptions whose message is for the user
files     files and directories that appear only when they are complete, and safe names
images    image files: complete, of the annotated size, their pixels
drawing   masks drawn over images, errors, example panels
labels    masks: the meaning of their values, their colors and files
parallel  a function over many items, in several processes
seeding   random draws that depend on a seed and a purpose
stage     what every stage script does around its own work
values    plain values for JSON
yaml12    YAML as DVC reads it

Imports no other package. A change here reruns every stage.
"""
