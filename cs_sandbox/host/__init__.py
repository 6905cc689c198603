"""The host API: what user code may ask of the platform, checked and performed outside of the cell.

`catalogue` says what there is; `calls` checks a call against the version's capabilities and gives it to the provider of
its area. Nothing here knows a service: `cs fn test` and the invoker bring their own providers.
"""
