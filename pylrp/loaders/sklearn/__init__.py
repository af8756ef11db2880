"""scikit-learn: ``estimator.py`` reads a fitted estimator or pipeline, ``steps.py`` what stands before it."""
