//! algorithm
