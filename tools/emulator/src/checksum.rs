//! The two checksums of page data: CRC-64/NVME (base64 of its 8 bytes, lowest first) and MD5 (base64 of its 16 bytes).
//!
//! The `crc64fast` crate, without suffix, computes CRC-64/XZ; the service refuses that, and so does a test below.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as CrcDigest};
use md5::{Digest, Md5};

/// CRC-64/NVME of `pieces` joined.
pub(crate) fn crc64<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> u64 {
    let mut digest = CrcDigest::new(CrcAlgorithm::Crc64Nvme);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

/// MD5 of `pieces` joined.
pub(crate) fn md5<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> [u8; 16] {
    let mut digest = Md5::new();
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize().into()
}

/// The value of `x-ms-content-crc64`.
pub(crate) fn crc64_text(crc: u64) -> String {
    BASE64_STANDARD.encode(crc.to_le_bytes())
}

/// The value of `Content-MD5`.
pub(crate) fn md5_text(md5: [u8; 16]) -> String {
    BASE64_STANDARD.encode(md5)
}

/// Why a checksum in a request cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadChecksum {
    NotBase64,
    WrongLength,
}

pub(crate) fn parse_crc64(text: &str) -> Result<u64, BadChecksum> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| BadChecksum::NotBase64)?;
    let bytes = bytes.try_into().map_err(|_| BadChecksum::WrongLength)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn parse_md5(text: &str) -> Result<[u8; 16], BadChecksum> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| BadChecksum::NotBase64)?;
    bytes.try_into().map_err(|_| BadChecksum::WrongLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc_of(data: Vec<u8>) -> u64 {
        crc64([&Bytes::from(data)])
    }

    #[test]
    fn crc64_agrees_with_values_from_the_service() {
        let counting: Vec<u8> = (0..=255).chain(0..=255).collect();
        let stepping: Vec<u8> = (0..4096_u32).map(|i| (i * 31 + 7).to_le_bytes()[0]).collect();
        let vectors: Vec<(Vec<u8>, u64, &str)> = vec![
            (vec![], 0, "AAAAAAAAAAA="),
            (b"123456789".to_vec(), 0xae8b_1486_0a79_9888, "iJh5CoYUi64="),
            (b"hello world".to_vec(), 0x8d29_d5c3_f6ea_8ebe, "vo7q9sPVKY0="),
            (b"Hello World!".to_vec(), 0x02e5_1cc8_5efc_e1a5, "peH8Xsgc5QI="),
            (vec![0; 512], 0x1de6_0e28_68a7_82e9, "6YKnaCgO5h0="),
            (vec![0xFF; 512], 0x5277_682d_daeb_44b6, "tkTr2i1od1I="),
            (vec![b'a'; 512], 0x87f3_9029_06b5_aebb, "u661BimQ84c="),
            (vec![b'b'; 512], 0xe03d_4af8_aef7_67cc, "zGf3rvhKPeA="),
            (vec![b'b'; 1024], 0xe3ad_a34f_a5b2_afa4, "pK+ypU+jreM="),
            (vec![b'b'; 4096], 0x2458_2efb_faa3_9285, "hZKj+vsuWCQ="),
            (vec![0; 4096], 0x6482_d367_eb22_b64e, "TrYi62fTgmQ="),
            (vec![0; 4 << 20], 0x0432_57e6_895e_fced, "7fxeieZXMgQ="),
            (counting, 0x65f4_8632_094a_1b07, "BxtKCTKG9GU="),
            (stepping, 0x4b43_77fd_e5ba_15fc, "/BW65f13Q0s="),
        ];
        for (data, crc, header) in vectors {
            let computed = crc_of(data);
            assert_eq!(computed, crc);
            assert_eq!(crc64_text(computed), header);
            assert_eq!(parse_crc64(header), Ok(crc));
        }
    }

    #[test]
    fn crc64_is_not_the_xz_variant() {
        assert_ne!(crc_of(b"123456789".to_vec()), 0x995d_c9bb_df19_39fa);
        assert_ne!(crc_of(vec![0; 4 << 20]), 0xdb61_09d2_7c45_6c6b);
    }

    #[test]
    fn pieces_add_up() {
        let pieces = [Bytes::from_static(b"hello "), Bytes::from_static(b"world")];
        assert_eq!(crc64(&pieces), 0x8d29_d5c3_f6ea_8ebe);
        assert_eq!(md5_text(md5(&pieces)), "XrY7u+Ae7tCTyyK7j1rNww==");
    }

    #[test]
    fn malformed_checksums_are_told_apart() {
        assert_eq!(parse_crc64("%"), Err(BadChecksum::NotBase64));
        assert_eq!(parse_crc64("AAAA"), Err(BadChecksum::WrongLength));
        assert_eq!(parse_md5("AAAAAAAAAAA="), Err(BadChecksum::WrongLength));
    }
}
