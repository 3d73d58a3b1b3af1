//! The footer of a fixed VHD: the last 512 bytes, which describe the raw disk before them. All numbers are big-endian.

use crate::range::PAGE;

/// Bytes of a footer: one page.
pub(crate) const FOOTER: u64 = PAGE;

/// Seconds from 1970 to 2000, where the footer's clock begins.
const EPOCH: u64 = 946_684_800;

const COOKIE: &[u8; 8] = b"conectix";
const FIXED: u32 = 2;

const CREATED: usize = 24;
const ORIGINAL_SIZE: usize = 40;
const CURRENT_SIZE: usize = 48;
const GEOMETRY: usize = 56;
const DISK_TYPE: usize = 60;
const CHECKSUM: usize = 64;
const UNIQUE_ID: usize = 68;

/// The footer of a fixed VHD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer([u8; 512]);

/// Why 512 bytes are no footer of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFooter {
    /// It does not begin with `conectix`.
    #[error("the cookie is missing")]
    Cookie,
    /// The VHD is dynamic or differencing.
    #[error("the VHD is not of the fixed kind")]
    NotFixed,
    /// The size it tells is not that of the bytes before it.
    #[error("the size in the footer is not that of the disk")]
    Size,
    /// Its bytes were changed without care.
    #[error("the footer's checksum is wrong")]
    Checksum,
}

impl Footer {
    /// A new footer for `bytes` of disk; `unix_seconds` is the time of its making.
    pub(crate) fn new(bytes: u64, unix_seconds: u64, unique_id: [u8; 16]) -> Footer {
        let mut footer = [0; 512];
        let mut put =
            |offset: usize, field: &[u8]| footer[offset..offset + field.len()].copy_from_slice(field);
        put(0, COOKIE);
        put(8, &2_u32.to_be_bytes());
        put(12, &0x0001_0000_u32.to_be_bytes());
        put(16, &u64::MAX.to_be_bytes());
        let created = u32::try_from(unix_seconds.saturating_sub(EPOCH)).unwrap_or(u32::MAX);
        put(CREATED, &created.to_be_bytes());
        put(28, b"win ");
        put(32, &0x000A_0000_u32.to_be_bytes());
        put(36, b"Wi2k");
        put(ORIGINAL_SIZE, &bytes.to_be_bytes());
        put(DISK_TYPE, &FIXED.to_be_bytes());
        put(UNIQUE_ID, &unique_id);
        Footer(footer).resized(bytes)
    }

    /// Reads the footer of a disk of `bytes`.
    pub(crate) fn parse(footer: &[u8; 512], bytes: u64) -> Result<Footer, BadFooter> {
        let footer = Footer(*footer);
        if footer.0[..8] != *COOKIE {
            return Err(BadFooter::Cookie);
        }
        if footer.field(DISK_TYPE) != FIXED.to_be_bytes() {
            return Err(BadFooter::NotFixed);
        }
        if footer.field(CURRENT_SIZE) != bytes.to_be_bytes() {
            return Err(BadFooter::Size);
        }
        if footer.field(CHECKSUM) != footer.checksum().to_be_bytes() {
            return Err(BadFooter::Checksum);
        }
        Ok(footer)
    }

    /// The same footer for another size: current size, geometry and checksum differ.
    pub(crate) fn resized(&self, bytes: u64) -> Footer {
        let mut footer = self.clone();
        footer.0[CURRENT_SIZE..CURRENT_SIZE + 8].copy_from_slice(&bytes.to_be_bytes());
        footer.0[GEOMETRY..GEOMETRY + 4].copy_from_slice(&geometry(bytes));
        let checksum = footer.checksum();
        footer.0[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_be_bytes());
        footer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn field<const LENGTH: usize>(&self, offset: usize) -> [u8; LENGTH] {
        let mut field = [0; LENGTH];
        field.copy_from_slice(&self.0[offset..offset + LENGTH]);
        field
    }

    /// One's complement of the sum of all bytes but the checksum's own.
    fn checksum(&self) -> u32 {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        !(sum(&self.0) - sum(&self.0[CHECKSUM..CHECKSUM + 4]))
    }
}

/// Cylinders, heads and sectors per track, as the VHD specification computes them; they may tell less than the size.
fn geometry(bytes: u64) -> [u8; 4] {
    let sectors = (bytes / 512).min(65535 * 16 * 255);
    let heads_of_17 = (sectors / 17).div_ceil(1024).max(4);
    let (per_track, heads) = if sectors > 65535 * 16 * 63 {
        (255, 16)
    } else if heads_of_17 <= 16 && sectors / 17 < heads_of_17 * 1024 {
        (17, heads_of_17)
    } else if sectors / 31 < 16 * 1024 {
        (31, 16)
    } else {
        (63, 16)
    };
    let cylinders = sectors / per_track / heads;
    let [high, low] = u16::try_from(cylinders).unwrap_or(u16::MAX).to_be_bytes();
    let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    [high, low, byte(heads), byte(per_track)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_footer_reads_back() {
        let footer = Footer::new(30 * GIB, EPOCH + 5, [7; 16]);
        assert_eq!(Footer::parse(&footer.0, 30 * GIB), Ok(footer.clone()));
        assert_eq!(footer.field(CREATED), 5_u32.to_be_bytes());
        let sum: u32 = footer.0.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = footer.0[64..68].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(u32::from_be_bytes(footer.field(CHECKSUM)), !(sum - own));
    }

    #[test]
    fn faults_are_found() {
        let good = Footer::new(GIB, EPOCH, [7; 16]).0;
        let with = |offset: usize, byte: u8| {
            let mut bad = good;
            bad[offset] = byte;
            Footer::parse(&bad, GIB)
        };
        assert_eq!(with(0, b'x'), Err(BadFooter::Cookie));
        assert_eq!(with(63, 3), Err(BadFooter::NotFixed));
        assert_eq!(with(55, 1), Err(BadFooter::Size));
        assert_eq!(with(70, 1), Err(BadFooter::Checksum));
    }

    #[test]
    fn growth_keeps_what_identifies_the_disk() {
        let small = Footer::new(GIB, EPOCH, [7; 16]);
        let large = small.resized(2 * GIB);
        assert_eq!(Footer::parse(&large.0, 2 * GIB), Ok(large.clone()));
        assert_eq!(large.field::<16>(UNIQUE_ID), [7; 16]);
        assert_eq!(large.field(ORIGINAL_SIZE), GIB.to_be_bytes());
    }

    #[test]
    fn geometries() {
        let chs = |bytes: u64| {
            let [high, low, heads, sectors] = geometry(bytes);
            (u16::from_be_bytes([high, low]), heads, sectors)
        };
        assert_eq!(chs(20 << 20), (602, 4, 17));
        assert_eq!(chs(GIB), (2080, 16, 63));
        assert_eq!(chs(127 * GIB), (65278, 16, 255));
        assert_eq!(chs(8 << 40), (65535, 16, 255));
    }
}
