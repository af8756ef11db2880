"""One network, one map, whatever wrote the file: networks, their twins folded by hand, and the writers.

``networks.py`` describes networks, ``twin.py`` has their maps by zennit, ``torch_writers.py``, ``keras_writers.py``,
``onnx_writers.py`` and ``runtime_writers.py`` write them, ``compare.py`` measures; ``test_one_map.py`` and
``python -m peers.one_map`` run it.
"""
