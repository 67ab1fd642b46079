"""The wave equations on Deepwave."""
