//! [`Payload`]: the end of a snapshot among the bytes of a link, which is told by its length or by a mark.

use memchr::memmem;

/// Length of a mark.
const MARK_BYTES: usize = 40;

/// A snapshot on its way, in one of the two forms that primaries send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// The length is known: so many bytes are still to come.
    Sized(u64),
    /// The end is where this mark comes.
    Marked {
        /// The mark.
        mark: Vec<u8>,
        /// The last bytes, which may be the beginning of the mark.
        held: Vec<u8>,
    },
}

impl Payload {
    /// The form that the line in front of a snapshot announces, without its `$`.
    pub(super) fn announced(text: &str) -> Option<Self> {
        match text.strip_prefix("EOF:") {
            Some(mark) if mark.len() == MARK_BYTES => Some(Self::Marked {
                mark: mark.as_bytes().to_vec(),
                held: Vec::new(),
            }),
            Some(_) => None,
            None => text.parse().ok().map(Self::Sized),
        }
    }

    /// Its length, if that is known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Sized(length) => Some(*length),
            Self::Marked { .. } => None,
        }
    }

    /// Takes bytes of the link: those of the snapshot are appended to `out`. Returns what stands behind the end of the snapshot, once
    /// that has come.
    pub(super) fn take(&mut self, bytes: Vec<u8>, out: &mut Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Sized(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                out.extend_from_slice(&bytes[..taken]);
                (*left == 0).then(|| bytes[taken..].to_vec())
            }
            Self::Marked { mark, held } => {
                held.extend_from_slice(&bytes);
                if let Some(end) = memmem::find(held, mark) {
                    out.extend_from_slice(&held[..end]);
                    return Some(held[end + mark.len()..].to_vec());
                }
                let certain = held.len() - held.len().min(MARK_BYTES - 1);
                out.extend(held.drain(..certain));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn announcements() {
        assert_eq!(Payload::announced("17"), Some(Payload::Sized(17)));
        assert!(Payload::announced(&format!("EOF:{MARK}")).is_some());
        for text in ["EOF:short", "-1", "x", ""] {
            assert_eq!(Payload::announced(text), None, "{text}");
        }
    }

    proptest! {
        /// However the bytes are cut, the snapshot is found, and so is what follows it.
        #[test]
        fn the_end_is_found_in_pieces(
            // Bytes of the mark, so that much looks like its beginning.
            body in prop::collection::vec(prop_oneof![Just(b'0'), Just(b'1'), Just(b'2')], 0..300),
            behind in prop::collection::vec(any::<u8>(), 0..60),
            cut in 1..90_usize,
            is_marked in any::<bool>(),
        ) {
            let (mut payload, all) = if is_marked {
                (Payload::announced(&format!("EOF:{MARK}")).unwrap(), [&body, MARK.as_bytes(), &behind].concat())
            } else {
                (Payload::Sized(body.len() as u64), [&body[..], &behind].concat())
            };
            let (mut out, mut rest, mut at) = (Vec::new(), None, 0);
            while rest.is_none() && at < all.len() {
                let end = (at + cut).min(all.len());
                rest = payload.take(all[at..end].to_vec(), &mut out);
                at = end;
            }
            if all.is_empty() {
                rest = payload.take(Vec::new(), &mut out);
            }
            let mut rest = rest.expect("the end has come");
            rest.extend_from_slice(&all[at..]);
            prop_assert_eq!(out, body);
            prop_assert_eq!(rest, behind);
        }
    }
}
