"""cs-http-gateway: where a request becomes an activation, and an activation's result an answer.

`ingress` accepts, `waiters` correlates results, `http_event` and `http_response` map HTTP.
"""
