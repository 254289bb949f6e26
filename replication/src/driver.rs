//! The only place with tasks and sockets, beside the transports: connections driven through the state machines of the other modules.
