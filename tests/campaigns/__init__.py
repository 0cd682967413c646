"""Break what training stands on, many times over, and count what goes unnoticed.

Each module is a campaign and a command: `python -m tests.campaigns.bytes --cases 1000`.
`test_campaigns` runs a small sample of each, and with `-m slow` all of it.
"""
