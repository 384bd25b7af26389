"""Adapters at run time: loaded, proven, named, moved to new versions, drained and unloaded."""
