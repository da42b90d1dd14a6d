"""Multiruns: their points, launched, continued, ranked and compared."""
