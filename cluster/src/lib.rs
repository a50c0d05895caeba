//! Hash slots and cluster decisions as pure functions and state machines.
