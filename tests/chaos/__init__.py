"""Scripts that do to optevo what machines and strangers do; run one with `python -m tests.chaos.NAME`."""
