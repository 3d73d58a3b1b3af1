//! Reads the records of a point by themselves, without the reader under test, and holds them against a snapshot.

use std::collections::BTreeMap;

use snapferry::azure::crc64::Crc64;
use snapferry::leaf::{LEAF, Sums};
use snapferry::record::format::{Basis, Frame, read_frame};
use snapferry_emulator::{Account, BlobView, DiskSnapshot};

/// Every leaf of the snapshot has its checksum in the records that the point leads to, and every record begins where the
/// one before it ended.
pub fn assert_recorded(account: &Account, container: &str, point: &BlobView, snapshot: &DiskSnapshot) {
    let mut name = point.metadata().get("snapferry_record").map(|text| part_of(text));
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    let mut layers = 0;
    while let Some((record, length)) = name.take() {
        layers += 1;
        let blob =
            account.read_blob(container, &record, None).unwrap_or_else(|| panic!("there is no {record}"));
        // A part that another run of the step went on from may be longer than what counts of it.
        let bytes = blob.read(0, length);
        let mut at = 0;
        while at < bytes.len() {
            let (frame, taken) = read_frame(&bytes[at..]).expect("a frame").expect("a whole frame");
            at += taken;
            match frame {
                Frame::Header(header) => {
                    if let Basis::Record(before) = &header.basis {
                        name = Some((before.name.clone(), before.bytes));
                    } else {
                        assert_eq!(header.basis, Basis::Zeros, "{record}");
                    }
                }
                Frame::Leaves(runs) => {
                    for run in runs {
                        for i in 0..run.count {
                            let number = run.first + i;
                            let sum = match &run.sums {
                                Sums::Zeros => 0,
                                Sums::Leaves(sums) => sums[usize::try_from(i).unwrap()],
                            };
                            expected.entry(number).or_insert(sum);
                        }
                    }
                }
                Frame::End { .. } => assert_eq!(at, bytes.len(), "{record}"),
            }
        }
    }
    assert!(layers > 0, "the point has no record");
    let image = snapshot.read(0, snapshot.len());
    for (number, leaf) in image.chunks(usize::try_from(LEAF).unwrap()).enumerate() {
        let sum = expected.get(&(number as u64)).copied().unwrap_or(0);
        let is_right = Crc64::of(leaf).value() == sum || (sum == 0 && leaf.iter().all(|byte| *byte == 0));
        assert!(is_right, "the record of leaf {number} is not of the snapshot's bytes");
    }
}

fn part_of(text: &str) -> (String, u64) {
    let mut parts = text.splitn(3, ':');
    let bytes = parts.next().unwrap().parse().expect("a record has a length");
    let name = parts.nth(1).expect("a record has a name");
    (percent_encoding::percent_decode_str(name).decode_utf8().unwrap().into_owned(), bytes)
}
