"""How fast the gateway is on this machine: ``make bench``. How to read it: docs/benchmarks.md.

``servers`` starts the gateway, a bare Flask endpoint and a static upstream,
``load`` asks them, ``plan`` says what is asked, ``report`` prints what came out.
"""
