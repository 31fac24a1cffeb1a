"""The stages of `bench align`, one file each: settings, artifact and code."""
