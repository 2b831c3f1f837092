"""Values that all other parts share. These modules import only each other from this service, and do no I/O."""
