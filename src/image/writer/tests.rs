#![allow(clippy::unwrap_used)]
use super::*;
use crate::image::Format;
use std::fs;

mod model;

const DISK: u64 = 1 << 20;
const LENGTH: u64 = DISK + 512;

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

fn whole() -> PageRange {
    range(0, LENGTH)
}

/// A folder with the path of an image in it that is not there yet.
struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
    image: ImagePath,
}

fn place(name: &str) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let image = ImagePath::parse(&format!("file:{}", path.display()), None).unwrap();
    Place { folder, path, image }
}

impl Place {
    async fn open(&self, options: WriterOptions) -> Result<(ImageWriter, Resumed)> {
        ImageWriter::open(&self.image, LENGTH, "disk@point", options).await
    }

    async fn refused(&self, options: WriterOptions) -> ErrorKind {
        self.open(options).await.unwrap_err().kind()
    }

    /// The names in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn overwrite() -> WriterOptions {
    WriterOptions { overwrite: true, ..WriterOptions::default() }
}

fn in_place() -> WriterOptions {
    WriterOptions { in_place: true, ..WriterOptions::default() }
}

fn fresh() -> WriterOptions {
    WriterOptions::default()
}

fn filled(byte: u8, range: PageRange) -> Vec<Bytes> {
    vec![vec![byte; usize::try_from(range.len()).unwrap()].into()]
}

async fn bytes(writer: &ImageWriter, range: PageRange) -> Vec<u8> {
    writer.read(range).await.unwrap().concat()
}

#[tokio::test]
async fn nothing_is_under_the_final_name_until_it_is_finished() {
    let place = place("disk.vhd");
    let (writer, resumed) = place.open(fresh()).await.unwrap();
    assert_eq!((resumed, writer.gaps_are_zero(), writer.length()), (Resumed::Fresh, true, LENGTH));
    writer.write(range(4096, 8192), &filled(3, range(4096, 8192))).await.unwrap();
    writer.note("8192").await.unwrap();
    assert_eq!(place.names(), [".disk.vhd.snapferry-partial", ".disk.vhd.snapferry-state"]);
    assert_eq!(writer.finish().await.unwrap(), place.path);
    assert_eq!(place.names(), ["disk.vhd"]);
    let content = fs::read(&place.path).unwrap();
    assert_eq!(content.len() as u64, LENGTH);
    assert!(
        content.iter().enumerate().all(|(at, byte)| *byte == if (4096..8192).contains(&at) { 3 } else { 0 })
    );
}

#[tokio::test]
async fn a_run_that_was_ended_goes_on_and_another_restore_begins_anew() {
    let place = place("disk.raw");
    let (writer, _) = place.open(fresh()).await.unwrap();
    let footer = range(DISK, LENGTH);
    writer.write(whole(), &filled(4, whole())).await.unwrap();
    writer.note("everything").await.unwrap();
    drop(writer);

    let (writer, resumed) = place.open(fresh()).await.unwrap();
    assert_eq!(resumed, Resumed::At("everything".to_owned()));
    assert!(bytes(&writer, whole()).await.iter().all(|byte| *byte == 4), "the footer, too");
    writer.zero(footer).await.unwrap();
    assert_eq!(bytes(&writer, footer).await, [0; 512]);
    drop(writer);

    for (identity, length) in [("disk@other", LENGTH), ("disk@point", LENGTH + DISK)] {
        place.open(fresh()).await.unwrap().0.note("a state to be refused").await.unwrap();
        let (writer, resumed) = ImageWriter::open(&place.image, length, identity, fresh()).await.unwrap();
        assert_eq!(resumed, Resumed::Fresh);
        assert!(bytes(&writer, whole()).await.iter().all(|byte| *byte == 0));
        assert_eq!(place.names(), [".disk.raw.snapferry-partial"], "the old state is gone at once");
    }

    // A state without its file, and a file that somebody cut off.
    for spoil in [
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            fs::File::options().write(true).open(path).unwrap().set_len(512).unwrap();
        },
    ] {
        place.open(fresh()).await.unwrap().0.note("spoilt").await.unwrap();
        spoil(&place.folder.path().join(".disk.raw.snapferry-partial"));
        assert_eq!(place.open(fresh()).await.unwrap().1, Resumed::Fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn two_at_once_are_one_too_many() {
    let place = place("disk.vhd");
    let (first, _) = place.open(fresh()).await.unwrap();
    assert_eq!(place.refused(fresh()).await, ErrorKind::LeaseHeld);
    first.finish().await.unwrap();
    let (first, _) = place.open(in_place()).await.unwrap();
    assert_eq!(place.refused(in_place()).await, ErrorKind::LeaseHeld);
    drop(first);
    place.open(in_place()).await.unwrap();
}

/// A restore that was dropped may have a write under way, and nobody can wait for that but the next one.
#[tokio::test(start_paused = true)]
async fn one_that_is_about_to_end_is_waited_for() {
    for options in [fresh(), in_place()] {
        let place = place("disk.vhd");
        if options.in_place {
            fs::write(&place.path, []).unwrap();
        }
        let (first, _) = place.open(options.clone()).await.unwrap();
        let ends = async move {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(place.open(options), ends);
        second.unwrap();
    }
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_when_told_and_only_by_a_whole_one() {
    let place = place("disk.vhd");
    fs::write(&place.path, "precious").unwrap();
    assert_eq!(place.refused(fresh()).await, ErrorKind::TargetExists);
    assert_eq!(place.names(), ["disk.vhd"]);

    let (writer, _) = place.open(overwrite()).await.unwrap();
    assert_eq!(fs::read_to_string(&place.path).unwrap(), "precious");
    writer.finish().await.unwrap();
    assert_eq!(fs::metadata(&place.path).unwrap().len(), LENGTH);
}

#[tokio::test]
async fn a_file_that_appears_meanwhile_is_not_replaced_and_nothing_is_lost() {
    let place = place("disk.vhd");
    let (writer, _) = place.open(fresh()).await.unwrap();
    writer.note("here").await.unwrap();
    fs::write(&place.path, "precious").unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::TargetExists);
    assert_eq!(fs::read_to_string(&place.path).unwrap(), "precious");
    fs::remove_file(&place.path).unwrap();
    assert_eq!(place.open(fresh()).await.unwrap().1, Resumed::At("here".to_owned()));
}

#[tokio::test]
async fn a_partial_file_that_was_taken_away_is_not_published() {
    let place = place("disk.vhd");
    let (writer, _) = place.open(fresh()).await.unwrap();
    let partial = place.folder.path().join(".disk.vhd.snapferry-partial");
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "another's").unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Output);
    assert!(!place.path.exists());

    let (writer, _) = place.open(fresh()).await.unwrap();
    fs::File::options().write(true).open(&partial).unwrap().set_len(1).unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Output);
}

#[tokio::test]
async fn a_link_is_kept_and_the_file_behind_it_replaced() {
    let place = place("disk.vhd");
    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().join("real.vhd");
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &place.path).unwrap();
    assert_eq!(
        place.open(overwrite()).await.unwrap().0.finish().await.unwrap(),
        real.canonicalize().unwrap()
    );
    assert!(place.path.is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().len(), LENGTH);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_refused_before_the_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = async |path: PathBuf| {
        let image = ImagePath::parse(&format!("file:{}", path.display()), None).unwrap();
        ImageWriter::open(&image, LENGTH, "x", fresh()).await.unwrap_err().kind()
    };
    assert_eq!(refused(folder.path().join("missing/disk.vhd")).await, ErrorKind::Output);
    assert_eq!(refused(folder.path().join("file/disk.vhd")).await, ErrorKind::Output);
    assert_eq!(refused("/proc/disk.vhd".into()).await, ErrorKind::Output);
    assert_eq!(refused(folder.path().join(format!("{}.vhd", "x".repeat(300)))).await, ErrorKind::Output);
    fs::create_dir(folder.path().join("folder.vhd")).unwrap();
    assert_eq!(refused(folder.path().join("folder.vhd")).await, ErrorKind::TargetUnsuitable);
    let image = ImagePath::parse("file:/dev/full", Some(Format::Raw)).unwrap();
    let error = ImageWriter::open(&image, LENGTH, "x", in_place()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetUnsuitable);
}

#[tokio::test]
async fn a_file_system_that_cannot_hold_it_is_left_as_it_was() {
    let place = place("disk.vhd");
    let error = ImageWriter::open(&place.image, 1 << 63, "x", fresh()).await.unwrap_err();
    assert_eq!((error.kind(), place.names().len()), (ErrorKind::Output, 0));
    for length in [0, 512, LENGTH + 1] {
        let error = ImageWriter::open(&place.image, length, "x", fresh()).await.unwrap_err();
        assert_eq!((error.kind(), place.names().len()), (ErrorKind::Internal, 0));
    }
}

#[tokio::test]
async fn a_file_in_place_must_be_there_and_no_longer_than_the_image() {
    let place = place("disk.vhd");
    assert_eq!(place.refused(in_place()).await, ErrorKind::NotFound);
    fs::write(&place.path, vec![1; usize::try_from(LENGTH).unwrap() + 1]).unwrap();
    assert_eq!(place.refused(in_place()).await, ErrorKind::TargetUnsuitable);

    // A disk that grew: the file grows, and what it held stays.
    fs::write(&place.path, vec![1; 4096]).unwrap();
    let (writer, resumed) = place.open(in_place()).await.unwrap();
    assert_eq!((resumed, writer.gaps_are_zero()), (Resumed::Fresh, false));
    assert_eq!(bytes(&writer, range(3584, 4608)).await, [[1; 512], [0; 512]].concat());
    writer.zero(range(0, 512)).await.unwrap();
    writer.note("512").await.unwrap();
    drop(writer);
    let (writer, resumed) = place.open(in_place()).await.unwrap();
    assert_eq!(resumed, Resumed::At("512".to_owned()));
    writer.finish().await.unwrap();
    assert_eq!(place.names(), ["disk.vhd"]);
    assert_eq!(fs::metadata(&place.path).unwrap().len(), LENGTH);

    // Another file under the same name is not what the state is about.
    place.open(in_place()).await.unwrap().0.note("512").await.unwrap();
    let content = fs::read(&place.path).unwrap();
    fs::remove_file(&place.path).unwrap();
    fs::write(&place.path, content).unwrap();
    assert_eq!(place.open(in_place()).await.unwrap().1, Resumed::Fresh);
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing_behind() {
    let place = place("disk.vhd");
    let (writer, _) = place.open(fresh()).await.unwrap();
    writer.note("x").await.unwrap();
    writer.discard().await.unwrap();
    assert_eq!(place.names(), [""; 0]);

    fs::write(&place.path, [1; 512]).unwrap();
    let (writer, _) = place.open(in_place()).await.unwrap();
    writer.note("x").await.unwrap();
    writer.discard().await.unwrap();
    assert_eq!(place.names(), ["disk.vhd"], "what was there before stays");
}

#[tokio::test]
async fn a_state_file_may_be_elsewhere() {
    let place = place("disk.vhd");
    let state = tempfile::tempdir().unwrap();
    let options = WriterOptions { state_file: Some(state.path().join("state.json")), ..fresh() };
    place.open(options.clone()).await.unwrap().0.note("x").await.unwrap();
    assert_eq!(place.names(), [".disk.vhd.snapferry-partial"]);
    let (writer, resumed) = place.open(options).await.unwrap();
    assert_eq!(resumed, Resumed::At("x".to_owned()));
    writer.finish().await.unwrap();
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_write_that_comes_after_the_end_is_refused() {
    let place = place("disk.vhd");
    let (writer, _) = place.open(fresh()).await.unwrap();
    let late = ImageWriter(Arc::clone(&writer.0));
    writer.finish().await.unwrap();
    let error = late.write(range(0, 512), &filled(1, range(0, 512))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(late.note("x").await.is_err());
    assert_eq!(place.names(), ["disk.vhd"]);
}

#[tokio::test]
async fn a_disk_that_failed_once_is_not_asked_again() {
    let place = place("disk.vhd");
    let (writer, _) = place.open(fresh()).await.unwrap();
    writer.0.is_broken.store(true, Ordering::Relaxed);
    assert_eq!(writer.note("x").await.unwrap_err().kind(), ErrorKind::Output);
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Output);
    assert_eq!(place.names(), [".disk.vhd.snapferry-partial"]);
}
