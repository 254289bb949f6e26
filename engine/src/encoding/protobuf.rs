//! The few protobuf wire types that bee blocks use.
