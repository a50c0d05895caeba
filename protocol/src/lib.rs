//! RESP2 and RESP3 on the wire: request parser, reply encoder, limits. No I/O.
