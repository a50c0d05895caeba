//! A request that outlives the buffer it was read into: queued by MULTI, or sent to every shard.

use shardis_protocol::{Arguments, Span};

/// The arguments of one request, in an allocation of their own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedRequest {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedRequest {
    /// Copies a request. Complexity: O(bytes).
    pub(crate) fn copy(args: Arguments<'_>) -> Self {
        Self::of(args.iter())
    }

    /// A request of these words, which must not be much longer than those of a request that was read. Complexity:
    /// O(bytes).
    pub(crate) fn of<'w>(words: impl ExactSizeIterator<Item = &'w [u8]> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(words.clone().map(<[u8]>::len).sum());
        let mut spans = Vec::with_capacity(words.len());
        for arg in words {
            let span = Span::new(bytes.len(), arg.len());
            spans.push(span.expect("the query buffer limit keeps a request within the reach of spans"));
            bytes.extend_from_slice(arg);
        }
        Self { bytes, spans }
    }

    /// The arguments; argument 0 is the command's name.
    pub(crate) fn arguments(&self) -> Arguments<'_> {
        Arguments::new(&self.bytes, &self.spans, &[])
    }

    /// Bytes of the arguments alone.
    pub(crate) fn argument_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the request, for the limits of a transaction and CLIENT LIST.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.spans)
    }
}
