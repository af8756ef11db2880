"""pylrp against other LRP libraries, run in their own environment: `make test-peers`."""
