"""Identity and authorisation: who calls (tokens, keys), and what they may do (policy, allowlists)."""
