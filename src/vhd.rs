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

    fn footer(size: u64) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..8].copy_from_slice(COOKIE);
        page[12..16].copy_from_slice(&VERSION.to_be_bytes());
        page[48..56].copy_from_slice(&size.to_be_bytes());
        page[60..64].copy_from_slice(&FIXED_DISK.to_be_bytes());
        let sum = checksum(&page);
        page[64..68].copy_from_slice(&sum.to_be_bytes());
        page
    }

    #[test]
    fn a_footer_must_fit_its_image() {
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
}
