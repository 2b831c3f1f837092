"""``make bench`` measures how fast the gateway is on this machine. docs/benchmarks.md explains the results.

``servers`` starts the gateway, a bare Flask endpoint and a static upstream. ``plan`` defines the measurements, ``load``
sends the requests, and ``report`` prints the results.
"""
