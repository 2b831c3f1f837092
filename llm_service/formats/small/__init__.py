"""The smaller wire formats, one file each."""
