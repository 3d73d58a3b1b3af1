//! Promise: what looks like something it is not is not taken for it: an image that was changed, a device of the same name, a
//! list that breaks the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use snapferry::ErrorKind;
use snapferry::azure::PageBlob;
use snapferry::azure::Role;
use snapferry::azure::crc64::Crc64;
use snapferry::copy::frontier::{Checkpoint, Counts, Frontier, Written};
use snapferry::copy::keeper::Backlog;
use snapferry::image::{ImagePath, ImageWriter, Resumed, WriterOptions};
use snapferry::ingest::{ImageJob, copy_image};
use snapferry::leaf::{Aligner, Sums};
use snapferry::progress::Progress;
use snapferry::range::{Extent, ExtentKind, PageRange};
use snapferry::record::format::{Basis, FORMAT, Header};
use snapferry::record::{Chain, Expect, Recorder};
use snapferry::restore::file::{FileJob, restore_to_file};
use snapferry::restore::point::Which;
use snapferry::step::Report;
use snapferry_emulator::{BadPageList, Call, Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use world::{CONTAINER, HOUR, MIB, World, noise, url};

async fn ingest(
    world: &World,
    text: &str,
    blob: &str,
    cancel: &CancellationToken,
) -> snapferry::Result<Report> {
    let target = world.account.container_sas(CONTAINER, blob, "rcwdl", HOUR);
    let job = ImageJob { image: ImagePath::parse(text, None).unwrap(), target: url(Role::Target, &target) };
    copy_image(&job, &world.client, &world.settings, &Progress::default(), cancel).await
}

struct Loop(String);
impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        if !made.status.success() {
            // Not eprintln, which the test runner swallows when a test passes.
            std::io::stderr()
                .write_all(b"NO LOOP DEVICE (losetup as root): NOT PROVED for real block devices\n")
                .unwrap();
            return None;
        }
        Some(Self(String::from_utf8(made.stdout).unwrap().trim().to_owned()))
    }
}
impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_with_the_same_time_of_writing_is_another_image() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let epoch = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let put = |seed, length| {
        std::fs::write(&path, noise(seed, length)).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().set_modified(epoch).unwrap();
    };
    let text = format!("file:{}", path.display());
    let go = CancellationToken::new();
    put(1, 4 * MIB);
    assert!(!ingest(&world, &text, "img", &go).await.unwrap().already_sealed);
    put(2, 6 * MIB);
    let again = ingest(&world, &text, "img", &go).await.unwrap();
    assert!(!again.already_sealed);
    let held = world.account.read_blob(CONTAINER, "img", None).unwrap();
    assert!(held.len() == 6 * MIB + 512 && held.read(0, 6 * MIB) == noise(2, 6 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_does_not_go_on_in_another_image() {
    let mut world = World::new().await;
    world.settings.plan.chunk = 64 << 10;
    world.settings.copy.concurrency = 1;
    world.settings.copy.checkpoint_every = std::time::Duration::from_millis(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let epoch = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let put = |seed| {
        std::fs::write(&path, noise(seed, 16 * MIB)).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().set_modified(epoch).unwrap();
    };
    let text = format!("file:{}", path.display());
    put(1);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let account = world.account.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let noted = account
                .read_blob(CONTAINER, "img", None)
                .and_then(|blob| blob.metadata().get("snapferry_checkpoint")?.parse::<u64>().ok());
            if noted.is_some_and(|offset| offset >= MIB) {
                return stop.cancel();
            }
        }
    });
    ingest(&world, &text, "img", &cancel).await.unwrap_err();
    put(2);
    let error = ingest(&world, &text, "img", &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseNotClean, "{error}");
    world.settings.rebase = true;
    let report = ingest(&world, &text, "img", &CancellationToken::new()).await.unwrap();
    let point = world.account.read_blob(CONTAINER, "img", Some(&report.point.point)).unwrap();
    assert!(point.read(0, 16 * MIB) == noise(2, 16 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_device_through_its_file_system_is_found() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (backing, mount) = (folder.path().join("backing"), folder.path().join("mount"));
    std::fs::File::create(&backing).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let Some(device) = Loop::over(&backing) else { return };
    let run = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
    };
    run("mkfs.ext4", &["-q", &device.0]);
    let go = CancellationToken::new();
    let first = ingest(&world, &device.0, "dev", &go).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    run("mount", &[&device.0, mount.to_str().unwrap()]);
    std::fs::write(mount.join("precious"), noise(9, MIB)).unwrap();
    run("umount", &[mount.to_str().unwrap()]);
    let again = ingest(&world, &device.0, "dev", &go).await.unwrap();
    assert!(!again.already_sealed && !first.already_sealed && again.bytes_sent > MIB);
    let point = world.account.read_blob(CONTAINER, "dev", Some(&again.point.point)).unwrap();
    assert!(std::fs::read(&device.0).unwrap() == point.read(0, 16 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_file_does_not_go_on_from_what_a_bad_list_said() {
    let mut world = World::new().await;
    world.settings.listing.window = MIB;
    world.settings.listing.parallel = 1;
    let disk = world.disk(16 * MIB);
    for i in 0..64 {
        disk.write(i * 256 * 1024, &noise(i, 4096)).unwrap();
        disk.write(i * 256 * 1024 + 16384, &noise(i, 4096)).unwrap();
    }
    world.settings.plan.join_gap = Some(0);
    let snapshot = disk.snapshot();
    world.copy(&snapshot, None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    let job = FileJob {
        from: url(Role::Source, &world.target_url()),
        which: Which::Latest,
        to: ImagePath::parse(&format!("file:{}", path.display()), None).unwrap(),
        differential: false,
        overwrite: false,
        force: false,
        state_file: None,
    };
    world.target.faults().add(
        Fault::new(FaultKind::BadPageList(BadPageList::Misordered)).on(Call::PageRanges).skip(6).always(),
    );
    let error = restore_to_file(
        &job,
        &world.client,
        &world.settings,
        &Progress::default(),
        &CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing to go on from is left");
}

#[tokio::test]
async fn the_state_file_of_one_device_is_not_believed_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, vec![0xaa; 4 << 20]).unwrap();
    std::fs::write(&b, vec![0xbb; 4 << 20]).unwrap();
    let (Some(a), Some(b)) = (Loop::over(&a), Loop::over(&b)) else { return };
    let options =
        || WriterOptions { state_file: Some(folder.path().join("state")), ..WriterOptions::default() };
    let image = |device: &Loop| ImagePath::parse(&device.0, None).unwrap();
    let (writer, _) = ImageWriter::open(&image(&a), 4 * MIB + 512, "p", options()).await.unwrap();
    let range = PageRange::new(0, MIB).unwrap();
    writer.write(range, &[vec![7; 1 << 20].into()]).await.unwrap();
    writer.note("1048576").await.unwrap();
    drop(writer);
    let (writer, resumed) = ImageWriter::open(&image(&b), 4 * MIB + 512, "p", options()).await.unwrap();
    assert_eq!(resumed, Resumed::Fresh);
    drop(writer);
    let somebodys = folder.path().join("letter");
    std::fs::write(&somebodys, b"dear").unwrap();
    let options = WriterOptions { state_file: Some(somebodys.clone()), ..WriterOptions::default() };
    let error = ImageWriter::open(&image(&b), 4 * MIB + 512, "p", options).await.unwrap_err();
    assert_eq!((error.kind(), std::fs::read(&somebodys).unwrap()), (ErrorKind::Usage, b"dear".to_vec()));
}

/// An older version wrote checkpoints between two edges of leaves.
#[test]
fn a_checkpoint_between_two_edges_of_leaves_is_gone_on_from() {
    let image = noise(1, 16 << 10);
    let at = 1536_u64;
    let before =
        Checkpoint { offset: at, counts: Counts::default(), digest: Some(Crc64::of(&image[..1536])) };
    let mut aligner = Aligner::new(at, 16 << 10);
    let mut frontier = Frontier::new(before);
    let rest = Extent { range: PageRange::new(at, 16 << 10).unwrap(), kind: ExtentKind::Data };
    let placed = aligner.push(rest);
    for (number, extent) in placed.iter().enumerate() {
        let range = extent.range;
        let bytes = &image[usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()];
        frontier.complete(
            number as u64,
            Written {
                range,
                crc: Some(Crc64::of(bytes)),
                sums: Some(Sums::Zeros),
                counts: Counts::default(),
            },
        );
    }
    let end = frontier.finish(placed.len() as u64, 16 << 10).unwrap();
    assert_eq!(end.digest.unwrap().value(), Crc64::of(&image).value());
}

/// Whatever the record has come to: a run that goes on begins with nothing of it in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_begins_its_record_with_nothing_in_memory() {
    let world = World::new().await;
    let base = PageBlob::connect(url(Role::Target, &world.target_url()), &world.client).unwrap();
    let header =
        |basis| Header { format: FORMAT, leaf: 4096, from: None, to: "x".to_owned(), length: 1 << 40, basis };
    let old = Recorder::begin(&base, "base.records/old", &header(Basis::Zeros)).unwrap().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    // 4 GiB of a disk: 8 MiB of record, and as many checkpoints as there are chunks.
    let mut part = None;
    for start in (0..4_u64 << 30).step_by(4 << 20) {
        let range = PageRange::new(start, start + (4 << 20)).unwrap();
        let sums = Sums::Leaves((0..1024).map(|_| random.u64(..)).collect());
        old.passed(&Written {
            range,
            crc: Some(Crc64::default()),
            sums: Some(sums),
            counts: Counts::default(),
        });
        part = old.upload(old.cut()).await.unwrap();
    }
    let part = part.unwrap();
    assert!(part.bytes > 8 << 20);
    let blob = world.account.read_blob(CONTAINER, "base.records/old", None).unwrap();
    assert_eq!(blob.len(), part.bytes);
    let basis = header(Basis::Record(part.clone()));
    let new = Recorder::go_on(&base, "base.records/new", &basis, &part).await.unwrap().unwrap();
    assert_eq!(new.backlog(), Backlog::None);
    let whole = new.upload(new.finish()).await.unwrap().unwrap();
    assert!(whole.bytes < 4096, "{whole:?}");
    let mut chain = Chain::open(&base, &whole).await.unwrap();
    assert!(chain.is_complete());
    let mut random = fastrand::Rng::with_seed(1);
    let first = chain.window(PageRange::new(0, 4 << 20).unwrap()).await.unwrap();
    assert!(first.iter().all(|expect| *expect == Expect::Sum(random.u64(..))));
    chain.finish().await.unwrap();
}
