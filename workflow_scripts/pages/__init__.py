"""What a person looks at: templates, charts, samples."""
