"""Synthetic knowledge tasks: facts about invented towns, each known to one of 24 adapters and to nobody else."""
