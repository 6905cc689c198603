"""Tests against peers that are not Python's: they run where the tools are there, and say why when they skip."""
