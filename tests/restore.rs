//! Promise: a disk is restored from any point, to a file, to a device-like file in place, to another base blob; and an
//! image becomes a point.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use snapferry::azure::{PageBlob, Role};
use snapferry::image::ImagePath;
use snapferry::ingest::{ImageJob, copy_image};
use snapferry::progress::Progress;
use snapferry::restore::blob::{BlobJob, restore_to_blob};
use snapferry::restore::file::{FileJob, FileReport, restore_to_file};
use snapferry::restore::point::{Which, find};
use snapferry::step::Report;
use snapferry::{ErrorKind, Result};
use snapferry_emulator::{Call, DiskSnapshot, Fault, FaultKind, Faults};
use tokio_util::sync::CancellationToken;
use world::{CONTAINER, HOUR, MIB, World, noise, url};

/// A disk with three snapshots and their points; on the third day it had grown.
struct Stage {
    world: World,
    snapshots: Vec<DiskSnapshot>,
    points: Vec<Report>,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let mut world = World::new().await;
        world.settings.plan.chunk = 256 << 10;
        world.settings.copy.grace = Duration::from_millis(20);
        let disk = world.disk(16 * MIB);
        disk.write(0, &noise(1, 5 * MIB)).unwrap();
        disk.write(9 * MIB, &noise(2, MIB)).unwrap();
        let mut snapshots = vec![disk.snapshot()];
        for i in 0..40 {
            disk.write(i * 397 * 1024, &noise(i + 10, 4096)).unwrap();
        }
        disk.clear(2 * MIB, MIB).unwrap();
        disk.write(9 * MIB + 512, &vec![0; 100 << 10]).unwrap();
        snapshots.push(disk.snapshot());
        disk.grow(20 * MIB).unwrap();
        disk.write(17 * MIB, &noise(3, MIB)).unwrap();
        snapshots.push(disk.snapshot());
        let mut points = Vec::new();
        for (i, snapshot) in snapshots.iter().enumerate() {
            points.push(world.copy(snapshot, i.checked_sub(1).map(|i| &snapshots[i])).await.unwrap());
        }
        Self { world, snapshots, points, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self, point: usize, name: &str) -> FileJob {
        FileJob {
            from: url(Role::Source, &self.world.target_url()),
            which: Which::Named(self.points[point].point.point.clone()),
            to: image(&self.path(name)),
            differential: false,
            overwrite: false,
            force: false,
            state_file: None,
        }
    }

    async fn restore(&self, job: &FileJob) -> Result<FileReport> {
        self.restore_until(job, &CancellationToken::new()).await
    }

    async fn restore_until(&self, job: &FileJob, cancel: &CancellationToken) -> Result<FileReport> {
        restore_to_file(job, &self.world.client, &self.world.settings, &Progress::default(), cancel).await
    }

    fn assert_file(&self, path: &Path, point: usize) {
        let snapshot = &self.snapshots[point];
        let image = snapshot.read(0, snapshot.len());
        let file = std::fs::read(path).unwrap();
        let is_raw = path.extension().is_some_and(|ending| ending == "raw");
        let expected = if is_raw { &image[..image.len() - 512] } else { &image[..] };
        assert!(file == expected, "{} is not point {point}", path.display());
    }

    async fn ingest(&self, path: &Path, blob: &str) -> Result<Report> {
        let target = self.world.account.container_sas(CONTAINER, blob, "rcwdl", HOUR);
        let job = ImageJob { image: image(path), target: url(Role::Target, &target) };
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        copy_image(&job, &self.world.client, &self.world.settings, &progress, &cancel).await
    }
}

fn image(path: &Path) -> ImagePath {
    ImagePath::parse(&format!("file:{}", path.display()), None).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_restored_to_files_of_both_forms() {
    let stage = Stage::new().await;
    for point in 0..3 {
        for name in ["disk.vhd", "disk.raw"] {
            let job = stage.job(point, name);
            let report = stage.restore(&job).await.unwrap();
            assert_eq!(report.point, stage.points[point].point.point);
            stage.assert_file(&stage.path(name), point);
            let again = stage.restore(&job).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::TargetExists);
            std::fs::remove_file(stage.path(name)).unwrap();
        }
    }
    assert!(names(stage.folder.path()).is_empty(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_file_is_sparse_and_moves_only_what_is_allocated() {
    let stage = Stage::new().await;
    let report = stage.restore(&stage.job(0, "disk.vhd")).await.unwrap();
    assert!(report.bytes <= 6 * MIB + 4096, "{report:?}");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(stage.path("disk.vhd")).unwrap());
    assert!(blocks * 512 < 8 * MIB, "{blocks} blocks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_is_found_by_name_time_and_age() {
    let stage = Stage::new().await;
    let base = PageBlob::connect(url(Role::Source, &stage.world.target_url()), &stage.world.client).unwrap();
    let found = async |text: &str| find(&base, &text.parse().unwrap()).await.map(|found| found.time);
    let times: Vec<_> = stage.points.iter().map(|report| report.point.point.clone()).collect();
    assert_eq!(found("latest").await.unwrap(), times[2]);
    for (i, time) in times.iter().enumerate() {
        assert_eq!(&found(time).await.unwrap(), time);
        assert_eq!(&found(stage.snapshots[i].time()).await.unwrap(), time);
        let as_of: jiff::Timestamp = stage.snapshots[i].time().parse().unwrap();
        let found = find(&base, &Which::AsOf(as_of)).await.unwrap();
        assert_eq!(&found.time, time);
    }
    for none in ["2001-01-01", "2001-01-01T00:00:00.0000000Z", "no-such-name"] {
        let error = found(none).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{none}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_anywhere_a_restore_goes_on() {
    let stage = Stage::new().await;
    for name in ["disk.vhd", "disk.raw"] {
        for reads in [1, 3, 7, 12, 20] {
            let job = stage.job(2, name);
            let faults = stage.world.target.faults();
            let held_up = FaultKind::Stall { lasting: Duration::from_mins(1) };
            let before = faults.fired();
            faults.add(Fault::new(held_up).on(Call::GetBlob).skip(reads + 6).always());
            let cancel = CancellationToken::new();
            let end = async {
                a_moment_after(&faults, before).await;
                cancel.cancel();
                std::future::pending::<()>().await;
            };
            // Half of them are dropped where they are, as a kill does it.
            if reads % 2 == 0 {
                let never = CancellationToken::new();
                tokio::select! {
                    _ = stage.restore_until(&job, &never) => panic!("done"),
                    () = a_moment_after(&faults, before) => {}
                }
            } else {
                tokio::select! {
                    ended = stage.restore_until(&job, &cancel) => {
                        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
                    }
                    () = end => unreachable!(),
                }
            }
            faults.clear();
            assert!(!stage.path(name).exists(), "nothing half-made stands under its name");
            stage.restore(&job).await.unwrap();
            stage.assert_file(&stage.path(name), 2);
            std::fs::remove_file(stage.path(name)).unwrap();
        }
    }
}

/// When a fault was met, and a note had time to be made.
async fn a_moment_after(faults: &Faults, fired: u64) {
    while faults.fired() == fired {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_moved_to_a_file_that_is_there() {
    let stage = Stage::new().await;
    stage.restore(&stage.job(0, "disk.vhd")).await.unwrap();
    let job = FileJob { differential: true, ..stage.job(1, "disk.vhd") };
    let report = stage.restore(&job).await.unwrap();
    stage.assert_file(&stage.path("disk.vhd"), 1);
    assert!(report.bytes_data < MIB && report.bytes < 3 * MIB, "{report:?}");
    // Grown, shrunk back, and nothing at all. Somebody else wrote to it.
    let grown = FileJob { differential: true, ..stage.job(2, "disk.vhd") };
    stage.restore(&grown).await.unwrap();
    stage.assert_file(&stage.path("disk.vhd"), 2);
    let file = std::fs::OpenOptions::new().write(true).open(stage.path("disk.vhd")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 3], 12_345_678).unwrap();
    let mended = stage.restore(&grown).await.unwrap();
    assert_eq!(mended.bytes, 4096);
    stage.assert_file(&stage.path("disk.vhd"), 2);
    assert_eq!(stage.restore(&grown).await.unwrap().bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_becomes_another_base_blob_that_later_differences_go_on_from() {
    let stage = Stage::new().await;
    let to = stage.world.account.container_sas(CONTAINER, "other", "rcwdl", HOUR);
    let restore = async |point: usize, differential| {
        let job = BlobJob {
            from: url(Role::Source, &stage.world.target_url()),
            which: Which::Named(stage.points[point].point.point.clone()),
            to: url(Role::Target, &to),
            differential,
        };
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        restore_to_blob(&job, &stage.world.client, &stage.world.settings, &progress, &cancel).await
    };
    let same = |point: usize, report: &Report| {
        let other = stage.world.account.read_blob(CONTAINER, "other", Some(&report.point.point)).unwrap();
        world::assert_same_bytes(&other, &stage.snapshots[point]);
        world::record::assert_recorded(&stage.world.account, CONTAINER, &other, &stage.snapshots[point]);
    };
    let first = restore(0, false).await.unwrap();
    same(0, &first);
    assert!(restore(0, true).await.unwrap().already_sealed);
    let second = restore(1, true).await.unwrap();
    same(1, &second);
    assert!(second.bytes_sent < MIB, "{second:?}");
    assert_eq!(restore(0, true).await.unwrap_err().kind(), ErrorKind::BaseElsewhere);
    assert_eq!(restore(2, false).await.unwrap_err().kind(), ErrorKind::TargetExists);

    // The disk itself goes on from there.
    let step = world::step(&stage.snapshots[2].grant(), Some(&stage.snapshots[1].grant()), &to);
    same(2, &stage.world.run(&step).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_point_and_the_next_one_a_difference() {
    let stage = Stage::new().await;
    for (name, ending) in [("joined-vhd", "vhd"), ("joined-raw", "raw")] {
        let path = stage.path(&format!("disk.{ending}"));
        for point in 0..3 {
            let job = FileJob { overwrite: true, ..stage.job(point, &format!("disk.{ending}")) };
            stage.restore(&job).await.unwrap();
            let report = stage.ingest(&path, name).await.unwrap();
            let blob = stage.world.account.read_blob(CONTAINER, name, Some(&report.point.point)).unwrap();
            let snapshot = &stage.snapshots[point];
            let disk = snapshot.len() - 512;
            assert_eq!(blob.len(), snapshot.len());
            assert!(blob.read(0, disk) == snapshot.read(0, disk), "{name} {point}");
            assert!(&blob.read(disk, 8)[..] == b"conectix");
            if ending == "vhd" {
                world::record::assert_recorded(&stage.world.account, CONTAINER, &blob, snapshot);
            }
            assert_eq!(report.from.is_some(), point > 0);
            if point == 1 {
                assert!(report.bytes_sent < MIB, "{report:?}");
            }
            assert!(stage.ingest(&path, name).await.unwrap().already_sealed);
        }
        // Another content, whose time of writing is set back to what it was: tar, rsync and touch do that.
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(77, 4096), 3 * MIB).unwrap();
        file.set_modified(written).unwrap();
        let report = stage.ingest(&path, name).await.unwrap();
        assert!(!report.already_sealed);
        assert_eq!(report.bytes_sent, 4096);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_in_a_point_is_not_handed_on_as_a_disk() {
    let stage = Stage::new().await;
    let point = stage.points[1].point.point.clone();
    let account = &stage.world.account;
    // In data that this point's step wrote, in data of the step before, and where nothing was ever written.
    for byte in [397 * 1024 + 5, 4 * MIB + 77, 12 * MIB + 3] {
        assert!(account.flip_bit(CONTAINER, "base", Some(&point), byte, 3));
        let error = stage.restore(&stage.job(1, "rot.vhd")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs, "{byte}: {error}");
        assert!(error.why().contains(&format!("bytes {}..", byte / 4096 * 4096)), "{error}");
        assert!(!stage.path("rot.vhd").exists());
        let blob = BlobJob {
            from: url(Role::Source, &stage.world.target_url()),
            which: Which::Named(point.clone()),
            to: url(Role::Target, &account.container_sas(CONTAINER, "laundered", "rcwdl", HOUR)),
            differential: false,
        };
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let copied =
            restore_to_blob(&blob, &stage.world.client, &stage.world.settings, &progress, &cancel).await;
        assert_eq!(copied.unwrap_err().kind(), ErrorKind::Differs);
        assert!(account.read_blob(CONTAINER, "laundered", None).unwrap().snapshots().is_empty());
        assert!(account.flip_bit(CONTAINER, "base", Some(&point), byte, 3));
        account.delete_blob(CONTAINER, "laundered");
    }
    stage.restore(&stage.job(1, "rot.vhd")).await.unwrap();
    stage.assert_file(&stage.path("rot.vhd"), 1);
}
