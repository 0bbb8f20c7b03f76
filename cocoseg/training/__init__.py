"""Training.

trainer       the training loop
augmentation  random crops, and their order
losses        cross-entropy and Dice
checkpoint    the state of an interrupted run
distributed   several processes (torchrun)
tracking      DVCLive and Weights & Biases

Imports `core`, `params.train`, `models` and `inference`. Only the train stage uses it.
"""
