raise KeyError("TELEMETRY_ADDRESS")
