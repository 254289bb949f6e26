//! A made-up UDP network with NATs.
