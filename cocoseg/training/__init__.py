"""Training.

trainer       the training loop
listener      what a training run reports, and to whom
augmentation  random crops and their order
losses        cross-entropy and Dice loss
checkpoint    the state of an interrupted run
distributed   several processes (torchrun)
tracking      DVCLive and Weights & Biases

Imports `core`, `params.train`, `models` and `inference`. Only the train stage uses this package.
"""
