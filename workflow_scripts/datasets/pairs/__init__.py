"""Preference pairs: by rules, and a user's own."""
