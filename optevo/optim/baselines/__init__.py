"""The usual optimizers, for comparison."""
