"""Figures of reports; matplotlib is loaded when one is drawn."""
