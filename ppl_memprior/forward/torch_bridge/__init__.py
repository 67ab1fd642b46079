"""Any PyTorch function as a JAX function."""
