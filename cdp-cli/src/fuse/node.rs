//! Nodes and their numbers.
//!
//! Layout of a number, from the highest bit:
//!
//! | bits | content |
//! |---|---|
//! | 2 | class: 0 fixed, 1 directory of a point, 2 image of a point, 3 link to a point |
//! | 13 | volume |
//! | 49 | class 0: which of the fixed nodes; else the seq |
//!
//! The root is number 1, as FUSE wants it. A volume or a seq that does not fit has no node (49 bits of seq last for 35 years
//! of 500,000 writes a second).

use cdp_core::units::{Seq, VolumeId};

const SEQ_BITS: u32 = 49;
const VOLUME_BITS: u32 = 13;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
const VOLUME_MASK: u64 = (1 << VOLUME_BITS) - 1;
const CLASS_SHIFT: u32 = SEQ_BITS + VOLUME_BITS;

const FIXED_ROOT: u64 = 1;
const FIXED_VOLUME: u64 = 2;
const FIXED_DISK: u64 = 3;
const FIXED_POINTS: u64 = 4;

/// Something that has a name in the mounted store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The mount point.
    Root,
    /// The directory of a volume.
    Volume(VolumeId),
    /// The live disk of a volume.
    Disk(VolumeId),
    /// The directory of the points of a volume.
    Points(VolumeId),
    /// The directory of a point.
    Point(VolumeId, Seq),
    /// The image of a point.
    PointDisk(VolumeId, Seq),
    /// A link to the directory of a point.
    PointLink(VolumeId, Seq),
}

impl Node {
    /// The number of this node, if it has one.
    pub fn number(self) -> Option<u64> {
        let (class, volume, low) = match self {
            Self::Root => (0, VolumeId::ZERO, FIXED_ROOT),
            Self::Volume(volume) => (0, volume, FIXED_VOLUME),
            Self::Disk(volume) => (0, volume, FIXED_DISK),
            Self::Points(volume) => (0, volume, FIXED_POINTS),
            Self::Point(volume, seq) => (1, volume, seq.get()),
            Self::PointDisk(volume, seq) => (2, volume, seq.get()),
            Self::PointLink(volume, seq) => (3, volume, seq.get()),
        };
        let volume = u64::from(volume.get());
        let fits = volume <= VOLUME_MASK && low <= SEQ_MASK;
        fits.then_some(class << CLASS_SHIFT | volume << SEQ_BITS | low)
    }

    /// The node of a number, if there can be one.
    pub fn of(number: u64) -> Option<Self> {
        let volume = u16::try_from(number >> SEQ_BITS & VOLUME_MASK).ok().map(VolumeId::new)?;
        let low = number & SEQ_MASK;
        let seq = Seq::new(low);
        match (number >> CLASS_SHIFT, low) {
            (0, FIXED_ROOT) if volume == VolumeId::ZERO => Some(Self::Root),
            (0, FIXED_VOLUME) => Some(Self::Volume(volume)),
            (0, FIXED_DISK) => Some(Self::Disk(volume)),
            (0, FIXED_POINTS) => Some(Self::Points(volume)),
            (0, _) => None,
            (1, _) => Some(Self::Point(volume, seq)),
            (2, _) => Some(Self::PointDisk(volume, seq)),
            _ => Some(Self::PointLink(volume, seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goal: the bounds of what has a number hold on both sides. Method: the last volume and seq, and one past each.
    #[test]
    fn numbers_end_where_their_bits_end() {
        assert_eq!(Node::Root.number(), Some(1));
        let (volume, seq) = (VolumeId::new(8191), Seq::new(SEQ_MASK));
        for node in [Node::Point(volume, seq), Node::PointDisk(volume, seq), Node::PointLink(volume, seq)] {
            assert_eq!(Node::of(node.number().unwrap()), Some(node));
        }
        assert_eq!(Node::Disk(VolumeId::new(8192)).number(), None);
        assert_eq!(Node::Point(volume, Seq::new(SEQ_MASK + 1)).number(), None);
        assert_eq!(Node::of(0), None);
        assert_eq!(Node::of(5), None);
    }

    proptest! {
        /// Goal: no two nodes share a number. Method: random numbers lead to a node that leads back.
        #[test]
        fn every_number_leads_to_one_node(number in any::<u64>()) {
            if let Some(node) = Node::of(number) {
                prop_assert_eq!(node.number(), Some(number));
            }
        }
    }
}
