"""The term genome: rule, optimizer, kernels, export."""
