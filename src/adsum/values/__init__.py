"""The values that users and the core share: JSON text, read-only answers, names and limits."""
