"""Explanations as one HTML file that shows somebody why the network said what it said: :class:`Report`.

``report.py`` explains and collects, ``views.py`` turns inputs and relevance into what the page draws, ``inner.py`` does
so for ledger and layers, ``words.py`` writes the sentences, ``page.py`` puts the file together from ``page/``.
"""

from pylrp.report.report import Report

__all__ = ["Report"]
