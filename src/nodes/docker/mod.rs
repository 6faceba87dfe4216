//! The Docker API of a node, over any stream that leads to its socket.
