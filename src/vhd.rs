//! The footer of a fixed VHD: the last 512 bytes of an exported disk, without which no disk can be made of it.
//!
//! Layout as in qemu's `block/vpc.c` and cloud-hypervisor's `VhdFooter`; all numbers are big-endian.

use crate::range::PAGE;

/// What the last page of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Footer {
    /// The footer of a fixed VHD that agrees with the length of the image.
    Valid,
    /// No footer: another kind of image.
    Absent,
    /// A footer that does not fit, and why.
    Broken(String),
}

const COOKIE: &[u8; 8] = b"conectix";
const VERSION: u32 = 0x0001_0000;
const FIXED_DISK: u32 = 2;
const DYNAMIC_DISK: u32 = 3;
const DIFFERENCING_DISK: u32 = 4;

/// The largest geometry that a footer can say: 65535 cylinders, 16 heads, 255 sectors per track.
const LARGEST_GEOMETRY: [u8; 4] = [0xff, 0xff, 16, 255];

/// Judges the last page of an image of `image_length` bytes.
pub fn inspect(last_page: &[u8], image_length: u64) -> Footer {
    if last_page.len() as u64 != PAGE || &last_page[..8] != COOKIE {
        return Footer::Absent;
    }
    let number = |at: usize| {
        u32::from_be_bytes([last_page[at], last_page[at + 1], last_page[at + 2], last_page[at + 3]])
    };
    let checks = [
        (number(12) == VERSION, format!("its version is {:#x}", number(12))),
        (number(60) == FIXED_DISK, format!("its disk type is {}, not fixed", number(60))),
        (number(64) == checksum(last_page), "its checksum is wrong".to_owned()),
        (current_size(last_page) == image_length.saturating_sub(PAGE), {
            format!(
                "it says {} bytes where the image has {}",
                current_size(last_page),
                image_length.saturating_sub(PAGE)
            )
        }),
    ];
    checks.into_iter().find(|(fits, _)| !fits).map_or(Footer::Valid, |(_, why)| Footer::Broken(why))
}

/// The footer of a fixed VHD with a disk of `disk_bytes`. Two calls with the same arguments give the same bytes:
/// it says no time of creation.
///
/// The geometry is the largest one, as `qemu-img` writes it with `force_size`, and not one computed from the
/// size. A computed one can only be rounded down, and there are readers that believe it more than the size; the
/// largest one tells them, too, to look at the size.
pub fn footer(disk_bytes: u64, unique_id: [u8; 16]) -> [u8; 512] {
    let mut page = [0; 512];
    let mut put = |at: usize, field: &[u8]| page[at..at + field.len()].copy_from_slice(field);
    put(0, COOKIE);
    put(8, &2_u32.to_be_bytes()); // features: the bit that is always set
    put(12, &VERSION.to_be_bytes());
    put(16, &u64::MAX.to_be_bytes()); // no second header, as in every fixed disk
    put(28, b"snfy");
    put(32, &VERSION.to_be_bytes());
    put(36, b"Wi2k"); // Azure looks at it
    put(40, &disk_bytes.to_be_bytes());
    put(48, &disk_bytes.to_be_bytes());
    put(56, &LARGEST_GEOMETRY);
    put(60, &FIXED_DISK.to_be_bytes());
    put(68, &unique_id);
    let sum = checksum(&page);
    page[64..68].copy_from_slice(&sum.to_be_bytes());
    page
}

/// Whether the last page of a file is the footer of a VHD that grows as it is filled, or of one that holds only
/// the difference to another file: neither is the bytes of a disk.
pub fn is_dynamic(last_page: &[u8]) -> bool {
    let kinds = [DYNAMIC_DISK.to_be_bytes(), DIFFERENCING_DISK.to_be_bytes()];
    last_page.starts_with(COOKIE)
        && last_page.get(60..64).is_some_and(|kind| kinds.iter().any(|known| known == kind))
}

fn current_size(footer: &[u8]) -> u64 {
    footer[48..56].iter().fold(0, |size, byte| size << 8 | u64::from(*byte))
}

/// One's complement of the sum of all bytes, the checksum's own four taken as zero.
fn checksum(footer: &[u8]) -> u32 {
    let sum =
        footer.iter().enumerate().filter(|(at, _)| !(64..68).contains(at)).map(|(_, byte)| u32::from(*byte));
    !sum.sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_must_fit_its_image() {
        let footer = |size| footer(size, [7; 16]);
        assert_eq!(inspect(&footer(1 << 20), (1 << 20) + 512), Footer::Valid);
        assert!(matches!(inspect(&footer(1 << 20), (2 << 20) + 512), Footer::Broken(_)));
        assert_eq!(inspect(&[0; 512], 1024), Footer::Absent);
        assert_eq!(inspect(b"conectix", 1024), Footer::Absent);
        for at in [13, 40, 60, 66, 500] {
            let mut page = footer(1 << 20);
            page[at] ^= 1;
            assert!(matches!(inspect(&page, (1 << 20) + 512), Footer::Broken(_)), "byte {at}");
        }
    }
    #[test]
    fn a_footer_says_the_same_whenever_it_is_made() {
        assert_eq!(footer(3 << 20, [7; 16]), footer(3 << 20, [7; 16]));
        assert_ne!(footer(3 << 20, [7; 16]), footer(3 << 20, [8; 16]));
        for size in [1 << 20, 30 << 30, 8191 << 30_u64] {
            let made = footer(size, [0xab; 16]);
            assert_eq!(inspect(&made, size + 512), Footer::Valid);
            assert_eq!((&made[28..32], &made[36..40]), (&b"snfy"[..], &b"Wi2k"[..]));
            assert_eq!((&made[24..28], &made[68..84]), (&[0; 4][..], &[0xab; 16][..]));
        }
    }

    #[test]
    fn a_dynamic_disk_is_told_from_a_fixed_one() {
        let mut page = footer(1 << 20, [0; 16]);
        assert!(!is_dynamic(&page));
        page[63] = 3;
        assert!(is_dynamic(&page));
        page[63] = 4;
        assert!(is_dynamic(&page));
        assert!(!is_dynamic(b"conectix"));
        assert!(!is_dynamic(&[0; 512]));
    }
}
