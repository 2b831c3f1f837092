"""What is recorded of a call: the request log, metrics, log lines, and the scrubbing that keeps content out."""
