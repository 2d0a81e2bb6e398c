"""Where a person meets the fleet: broker, ingest, store, commands, API."""
