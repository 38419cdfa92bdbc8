"""Organs in abdominal CT: 3D attention U-Nets from scan to mask to report."""

__version__ = "0.1.0"
