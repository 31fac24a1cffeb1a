"""Official files and images: a folder of them, or the hub laid out as one."""
