//! CRC-64/NVME, the checksum that Azure Storage calls CRC64.
//!
//! On the wire it is the base64 of the eight bytes, little-endian. The `crc64fast` crate computes another CRC
//! (CRC-64/XZ), which the service refuses.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm::Crc64Nvme;

use crate::leaf::LEAF;

/// A CRC-64/NVME with the number of bytes that it covers, so that neighbours can be joined without reading
/// them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc64 {
    value: u64,
    bytes: u64,
}

impl Crc64 {
    /// The checksum of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self { value: crc_fast::checksum(Crc64Nvme, data), bytes: data.len() as u64 }
    }

    /// The checksum of `bytes` zeros, in time logarithmic in `bytes`.
    pub fn of_zeros(bytes: u64) -> Self {
        Self { value: !multiply(power_of_bytes(bytes), !0), bytes }
    }

    /// The checksum of these bytes followed by `next`'s.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        let moved = if next.bytes == LEAF {
            move_by_leaf(self.value)
        } else {
            multiply(power_of_bytes(next.bytes), self.value)
        };
        Self { value: moved ^ next.value, bytes: self.bytes.saturating_add(next.bytes) }
    }

    /// A checksum that was computed elsewhere.
    pub fn from_parts(value: u64, bytes: u64) -> Self {
        Self { value, bytes }
    }

    /// The checksum as a number.
    pub fn value(self) -> u64 {
        self.value
    }

    /// How many bytes it covers.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// The value of `x-ms-content-crc64`.
    pub fn to_header(self) -> String {
        STANDARD.encode(self.value.to_le_bytes())
    }
}

/// Reads `x-ms-content-crc64`.
pub fn parse_header(text: &str) -> Option<u64> {
    let bytes = STANDARD.decode(text.trim()).ok()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The generator polynomial of CRC-64/NVME, reflected: bit 63 stands for x^0.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// x^(2^k) modulo the polynomial, for all k.
static POWERS: LazyLock<[u64; 64]> = LazyLock::new(|| {
    let mut powers = [1 << 62; 64];
    for k in 1..powers.len() {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
    }
    powers
});

/// The product of two polynomials modulo the generator: what joining checksums comes down to. `crc-fast` can join
/// too, but squares a matrix for each bit of the length; with a gap before every chunk, that alone made a copy of
/// scattered changes eight times slower.
fn multiply(a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    for bit in (0..64).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

/// x^(8 * bytes): what as many bytes of zeros multiply a checksum by.
fn power_of_bytes(bytes: u64) -> u64 {
    const ONE: u64 = 1 << 63;
    (0..61).filter(|k| bytes >> k & 1 == 1).fold(ONE, |power, k| multiply(POWERS[k + 3], power))
}

/// What each byte of a checksum becomes when a leaf follows: every leaf of a copy is joined, one after the other.
static MOVED_BY_LEAF: LazyLock<[[u64; 256]; 8]> = LazyLock::new(|| {
    let power = power_of_bytes(LEAF);
    std::array::from_fn(|byte| std::array::from_fn(|value| multiply(power, (value as u64) << (8 * byte))))
});

fn move_by_leaf(value: u64) -> u64 {
    let tables = &*MOVED_BY_LEAF;
    value
        .to_le_bytes()
        .into_iter()
        .zip(tables)
        .fold(0, |moved, (byte, table)| moved ^ table[usize::from(byte)])
}

/// Computes the checksum of a body that comes in frames.
pub struct Running(crc_fast::Digest);

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("bytes", &self.0.get_amount()).finish_non_exhaustive()
    }
}

impl Default for Running {
    fn default() -> Self {
        Self(crc_fast::Digest::new(Crc64Nvme))
    }
}

impl Running {
    /// Takes in the next frame.
    pub fn update(&mut self, frame: &[u8]) {
        self.0.update(frame);
    }

    /// The checksum of all frames.
    pub fn finish(&self) -> Crc64 {
        Crc64 { value: self.0.finalize(), bytes: self.0.get_amount() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_the_service_are_met() {
        let pattern: Vec<u8> = (0..4096_u32).map(|i| u8::try_from((i * 31 + 7) % 256).unwrap()).collect();
        for (data, header) in [
            (Vec::new(), "AAAAAAAAAAA="),
            (b"123456789".to_vec(), "iJh5CoYUi64="),
            (b"Hello World!".to_vec(), "peH8Xsgc5QI="),
            (vec![0; 512], "6YKnaCgO5h0="),
            (vec![b'a'; 512], "u661BimQ84c="),
            (vec![b'b'; 4096], "hZKj+vsuWCQ="),
            (vec![0; 4 << 20], "7fxeieZXMgQ="),
            (pattern, "/BW65f13Q0s="),
        ] {
            let crc = Crc64::of(&data);
            assert_eq!(crc.to_header(), header);
            assert_eq!(parse_header(header), Some(crc.value()));
        }
    }

    #[test]
    fn it_is_not_the_crc_of_the_crate_with_the_likely_name() {
        assert_ne!(Crc64::of(b"123456789").value(), 0x995d_c9bb_df19_39fa);
    }

    #[test]
    fn a_malformed_header_is_no_checksum() {
        assert_eq!(parse_header("AAAA"), None);
        assert_eq!(parse_header("not base64!"), None);
    }

    #[test]
    fn a_leaf_is_joined_as_anything_else() {
        let (head, leaf) = ([7; 100], [9; 4096]);
        let whole = [&head[..], &leaf].concat();
        assert_eq!(Crc64::of(&head).join(Crc64::of(&leaf)), Crc64::of(&whole));
    }

    proptest! {
        #[test]
        fn joined_parts_equal_the_whole(a: Vec<u8>, b: Vec<u8>, zeros in 0_u64..5000) {
            let whole = [a.clone(), b.clone(), vec![0; usize::try_from(zeros).unwrap()]].concat();
            let joined = Crc64::of(&a).join(Crc64::of(&b)).join(Crc64::of_zeros(zeros));
            prop_assert_eq!(joined, Crc64::of(&whole));
            let mut running = Running::default();
            running.update(&a);
            running.update(&b);
            prop_assert_eq!(running.finish(), Crc64::of(&a).join(Crc64::of(&b)));
        }
    }
}
