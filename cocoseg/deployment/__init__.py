"""The trained model in use (export, and `cocoseg predict`).

export      the model as ONNX, and the proof that it does what PyTorch does
variants    smaller copies of the ONNX file: float16, int8
prediction  a model file and a photo, nothing else
coco        predictions as a COCO instances file

Uses `common`, `network` and the pictures of `annotations`.
"""
