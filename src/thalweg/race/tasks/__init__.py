"""Bundled tasks, on real data that comes with Python or scikit-learn."""
