"""Benchmarks and, in time, figures and reports. Imports optevo; optevo never imports this."""
