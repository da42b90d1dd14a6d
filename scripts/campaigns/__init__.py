"""Campaigns that kill runs, fill their disk and delete their folders; scripts/torture.py starts them."""
