"""The catalogue of versions, the dialogue formats, loading, adapters and the tiny stand-ins."""
