"""Getting raw files: the hub, transfers, archives."""
