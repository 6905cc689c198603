"""cs-control: the lifecycle of functions. One module a rule or a resource; `servicers` is the way in by gRPC."""
