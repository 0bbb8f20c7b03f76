"""Training (train).

training     the loop: optimise, validate, keep the best, go on after an interruption
crops        augmented crops to train on
losses       the training loss
checkpoint   a run's state at the end of an epoch
distributed  several processes (torchrun, DDP)
tracking     the same figures to DVC and to Weights & Biases

Uses `common` and `network`; only the stage train uses it.
"""
