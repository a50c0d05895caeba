//! The bound on a node of a quicklist: `list-max-listpack-size` in both its senses.

/// The size classes that -1 to -5 stand for, in bytes.
const CLASSES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// The most elements that can be asked for.
const ELEMENTS_MAX: i32 = i16::MAX as i32;
/// Nodes limited by their elements still do not become larger than this, in bytes.
const BYTES_SAFE: usize = 8 << 10;
/// Bytes that an element is taken to need beside its text when it is asked whether it still fits.
const ELEMENT_OVERHEAD: usize = 8;
/// Bytes of a pack beside its elements.
const PACK_OVERHEAD: usize = 7;

/// A limit for nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeLimit {
    /// At most so many bytes.
    Bytes(u32),
    /// At most so many elements, and 8 KiB.
    Elements(u16),
}

impl NodeLimit {
    /// The bound that a value of `list-max-listpack-size` names: -1 to -5 (and all below) classes of bytes, others
    /// elements.
    pub(crate) fn new(size: i32) -> Self {
        if size >= 0 {
            return Self::Elements(size.clamp(1, ELEMENTS_MAX) as u16);
        }
        let class = (size.unsigned_abs() as usize).min(CLASSES.len()) - 1;
        Self::Bytes(CLASSES[class] as u32)
    }

    /// The value of `list-max-listpack-size` that means this.
    pub(crate) fn size(self) -> i32 {
        match self {
            Self::Elements(max) => i32::from(max),
            Self::Bytes(max) => {
                let class = CLASSES.iter().position(|bytes| *bytes == max as usize);
                -(class.unwrap_or(0) as i32 + 1)
            }
        }
    }

    /// Whether a pack of that many bytes and elements is too large.
    #[inline]
    pub(crate) fn exceeded_by(self, bytes: usize, elements: usize) -> bool {
        match self {
            Self::Bytes(max) => bytes > max as usize,
            Self::Elements(max) => bytes > BYTES_SAFE || elements > usize::from(max),
        }
    }

    /// Whether a pack of that size would be too large with one element of `len` bytes more.
    #[inline]
    pub(crate) fn exceeded_with(self, bytes: usize, elements: usize, len: usize) -> bool {
        self.exceeded_by(
            bytes.saturating_add(len).saturating_add(ELEMENT_OVERHEAD),
            elements + 1,
        )
    }

    /// Whether one element of `len` bytes is too large for any pack.
    #[inline]
    pub(crate) fn exceeded_alone(self, len: usize) -> bool {
        self.exceeded_with(PACK_OVERHEAD, 0, len)
    }

    /// Whether a node of that size may become the whole list again: at most half of the limit, so that a list at the
    /// limit does not go to and fro, or all of it when nothing is about to shrink.
    #[inline]
    pub(crate) fn suits_whole_list(self, bytes: usize, elements: usize, shrinking: bool) -> bool {
        let share = if shrinking { 2 } else { 1 };
        match self {
            Self::Bytes(max) => bytes <= max as usize / share,
            Self::Elements(max) => elements <= usize::from(max) / share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_senses() {
        let cases = [
            (-1, NodeLimit::Bytes(4096)),
            (-2, NodeLimit::Bytes(8192)),
            (-5, NodeLimit::Bytes(65_536)),
            (-6, NodeLimit::Bytes(65_536)),
            (i32::MIN, NodeLimit::Bytes(65_536)),
            (0, NodeLimit::Elements(1)),
            (1, NodeLimit::Elements(1)),
            (128, NodeLimit::Elements(128)),
            (40_000, NodeLimit::Elements(32_767)),
        ];
        for (size, limit) in cases {
            assert_eq!(NodeLimit::new(size), limit, "{size}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let bytes = NodeLimit::new(-2);
        assert!(!bytes.exceeded_by(8192, 100_000) && bytes.exceeded_by(8193, 1));
        let elements = NodeLimit::new(3);
        assert!(!elements.exceeded_by(8192, 3));
        assert!(elements.exceeded_by(8193, 1) && elements.exceeded_by(10, 4));
        assert!(!bytes.exceeded_alone(8177) && bytes.exceeded_alone(8178));
    }

    #[test]
    fn a_list_shrinks_at_half_the_limit() {
        let bytes = NodeLimit::new(-1);
        assert!(bytes.suits_whole_list(2048, 2000, true) && !bytes.suits_whole_list(2049, 1, true));
        assert!(bytes.suits_whole_list(4096, 1, false) && !bytes.suits_whole_list(4097, 1, false));
        let elements = NodeLimit::new(5);
        assert!(elements.suits_whole_list(100_000, 2, true) && !elements.suits_whole_list(10, 3, true));
        assert!(!NodeLimit::new(1).suits_whole_list(10, 1, true));
    }
}
