"""Explanations of predictions as one HTML file for readers without knowledge of the method: :class:`Report`.

``report.py`` explains and collects, ``input_display.py`` turns inputs and relevance into what the page draws,
``ledger_and_layers.py`` does so for ledger and layers, ``sentences.py`` writes the text, ``page.py`` puts the file
together from ``page/``.
"""

from pylrp.report.report import Report

__all__ = ["Report"]
