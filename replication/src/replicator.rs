//! One core and its peers: who has what, which block to ask of whom, how much to give.
