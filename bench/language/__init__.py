"""English as answers use it: objects, claims, numbers."""
