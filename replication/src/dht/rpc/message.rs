//! Requests and replies of dht-rpc.
