"""Links over the publish/subscribe of an engine that users operate already: NATS, Redis, Valkey."""
