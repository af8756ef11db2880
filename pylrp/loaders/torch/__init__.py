"""torch modules: ``module.py`` has them written as ONNX, in the ways that ``call.py`` knows, and reads that."""
