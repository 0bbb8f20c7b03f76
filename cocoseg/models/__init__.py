"""Segmentation networks.

networks  build them and prepare them for inference
heads     the layers on top of a backbone
weights   pretrained weights and model files
devices   the device that computes

Imports `core`.
"""
