"""ONNX models: ``file.py`` opens them, ``model.py`` makes a graph by the tables of operators beside it."""
