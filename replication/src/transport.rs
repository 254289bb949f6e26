//! Ways to reach a peer, behind one seam: TCP, later UDX, and a simulated network for tests.
