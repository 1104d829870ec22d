"""What a user sets: the settings, reading and checking them, what each stage depends on, Snakemake's plan."""
