"""The network and running it on photos: what training, scoring and deployment share.

model      build, load pretrained weights, save and load
heads      what stands on the backbone
photos     photos and their label maps as tensors, in batches
inference  run the network on whole photos
tiles      a photo in overlapping tiles, in bounded memory
confusion  pixels counted, and the scores that training validates by
devices    which device computes

Uses `common`. The stages train, evaluate and export use it.
"""
