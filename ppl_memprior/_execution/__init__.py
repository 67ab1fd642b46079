"""Who computes what, where, and keeps it: batches, bars, executors, stores of finished work."""
