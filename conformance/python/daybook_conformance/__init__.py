"""A real Daybook node, and the third-party clients that are pointed at it."""
