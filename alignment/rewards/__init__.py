"""Rewards, one file each: settings and code. `bench/registry.py` names them."""
