//! SSH connections to nodes: trust, probe, and streams through them.
