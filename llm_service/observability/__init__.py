"""What is recorded of a call: the request log, metrics and log lines, and the scrubbing that keeps content out."""
