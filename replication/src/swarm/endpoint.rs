//! Streams, DHT and swarm as one machine.
