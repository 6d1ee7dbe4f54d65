"""Helpers that know nothing of graphs; nothing here is public."""
