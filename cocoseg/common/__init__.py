"""What every stage uses.

errors      the one exception that a user is meant to read
files       files and folders that appear when they are whole
images      photos: whole, of the annotated size, their pixels
labels      label maps: what the numbers mean, their colours, their files
parallel    the same function over many items, on several cores
params      the typed form of params.yaml
randomness  draws that depend on a seed and a purpose
stage       what every stage script does around its own work

Every package may use it; it uses none. A change here reruns every stage.
"""
