"""HTTP to the vendors: the head that an SDK writes, and the transport that sends it."""
