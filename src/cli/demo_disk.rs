//! The disk of the demo: a partition table, a superblock, files strewn about, and what happens to a disk in two
//! days: small writes everywhere, new files, deleted files, files of zeros, growth.

use snapferry_emulator::{Disk, DiskError};

const MIB: u64 = 1 << 20;
const CLUSTER: u64 = 4096;

/// A disk with a life of its own, the same in every run.
pub(super) struct DemoDisk {
    disk: Disk,
    random: fastrand::Rng,
}

impl DemoDisk {
    /// Partitions and fills an empty disk to about a third.
    pub(super) fn fill(disk: Disk) -> Result<Self, DiskError> {
        let mut made = Self { disk, random: fastrand::Rng::with_seed(0x5eed) };
        made.partition()?;
        let wanted = made.disk.len() / 3;
        let mut written = 0;
        while written < wanted {
            written += made.write_file(4 * MIB)?;
        }
        Ok(made)
    }

    /// A day of use.
    pub(super) fn use_for_a_day(&mut self) -> Result<(), DiskError> {
        let megabytes = self.disk.len() / MIB;
        for _ in 0..megabytes {
            let at = self.place(CLUSTER);
            self.write(at, CLUSTER)?;
        }
        for _ in 0..megabytes.div_ceil(64) {
            self.write_file(8 * MIB)?;
            let length = self.length(2 * MIB);
            let deleted = self.place(length);
            self.disk.clear(deleted, length)?;
            let length = self.length(MIB);
            let zeroed = self.place(length);
            self.disk.write(zeroed, &vec![0; usize::try_from(length).unwrap_or_default()])?;
        }
        Ok(())
    }

    /// The owner makes it a quarter larger, and the new room is used.
    pub(super) fn grow(&mut self) -> Result<(), DiskError> {
        let old = self.disk.len();
        self.disk.grow(old + (old / 4).next_multiple_of(MIB))?;
        self.partition()?;
        self.write(old, 3 * MIB.min((self.disk.len() - old) / 3))?;
        self.use_for_a_day()
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// An MBR with one Linux partition over the whole disk, and an ext superblock where one belongs.
    fn partition(&self) -> Result<(), DiskError> {
        let sectors = u32::try_from((self.disk.len() - MIB) / 512).unwrap_or(u32::MAX);
        let mut record = [0; 512];
        record[450] = 0x83;
        record[454..458].copy_from_slice(&2048_u32.to_le_bytes());
        record[458..462].copy_from_slice(&sectors.to_le_bytes());
        record[510..].copy_from_slice(&[0x55, 0xaa]);
        self.disk.write(0, &record)?;
        let mut superblock = [0; 1024];
        superblock[56..58].copy_from_slice(&0xef53_u16.to_le_bytes());
        superblock[4..8].copy_from_slice(&(sectors / 8).to_le_bytes());
        self.disk.write(MIB + 1024, &superblock)
    }

    fn write_file(&mut self, longest: u64) -> Result<u64, DiskError> {
        let length = self.length(longest);
        let at = self.place(length);
        self.write(at, length)?;
        Ok(length)
    }

    fn write(&mut self, at: u64, length: u64) -> Result<(), DiskError> {
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        self.random.fill(&mut data);
        self.disk.write(at, &data)
    }

    fn length(&mut self, longest: u64) -> u64 {
        let longest = longest.min(self.disk.len() / 8);
        self.random.u64(1..=(longest / CLUSTER).max(1)) * CLUSTER
    }

    /// A place behind the partition's start for `length` bytes.
    fn place(&mut self, length: u64) -> u64 {
        let first = MIB + 2 * CLUSTER;
        let last = self.disk.len().saturating_sub(length).max(first);
        first + self.random.u64(0..=(last - first) / CLUSTER) * CLUSTER
    }
}
