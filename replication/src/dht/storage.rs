//! What other peers keep at this node.
