"""Slips of annotators: found, listed with their positions, and shown, but never refused."""
