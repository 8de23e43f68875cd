"""Figures, by plotly."""
