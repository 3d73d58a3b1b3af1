#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

fn at(folder: &tempfile::TempDir, name: &str) -> (PathBuf, ImagePath) {
    let path = folder.path().join(name);
    let image = ImagePath::parse(&format!("file:{}", path.display()), None).unwrap();
    (path, image)
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

fn whole(reader: &ImageReader) -> PageRange {
    range(0, reader.length())
}

async fn bytes(reader: &ImageReader, range: PageRange) -> Vec<u8> {
    reader.read(range).await.unwrap().concat()
}

fn vhd_of(disk: &[u8]) -> Vec<u8> {
    [disk, &vhd::footer(disk.len() as u64, [1; 16])].concat()
}

async fn refused(name: &str, content: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let (path, image) = at(&folder, name);
    std::fs::write(path, content).unwrap();
    ImageReader::open(&image).await.unwrap_err()
}

#[tokio::test]
async fn a_fixed_vhd_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, image) = at(&folder, "disk.vhd");
    let content = vhd_of(&vec![9; 1 << 20]);
    std::fs::write(&path, &content).unwrap();
    let reader = ImageReader::open(&image).await.unwrap();
    assert_eq!((reader.length(), reader.name().as_str()), ((1 << 20) + 512, "disk.vhd"));
    assert_eq!(bytes(&reader, whole(&reader)).await, content);
    assert_eq!(bytes(&reader, range(512, 1024)).await, [9; 512]);
    assert!((jiff::Timestamp::now() - reader.changed()).get_seconds() < 600);
    let error = reader.read(range(1 << 20, 1 << 21)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn a_raw_file_of_any_size_becomes_whole_mib_and_a_footer() {
    for size in [1, 511, 513, 1 << 20, (1 << 20) + 1, (3 << 20) - 1000] {
        let folder = tempfile::tempdir().unwrap();
        let (path, image) = at(&folder, "disk.raw");
        std::fs::write(&path, vec![7; size]).unwrap();
        let reader = ImageReader::open(&image).await.unwrap();
        let disk = size.next_multiple_of(1 << 20);
        let read = bytes(&reader, whole(&reader)).await;
        assert_eq!(read.len(), disk + 512);
        assert!(read[..size].iter().all(|byte| *byte == 7));
        assert!(read[size..disk].iter().all(|byte| *byte == 0));
        assert_eq!(vhd::inspect(&read[disk..], reader.length()), vhd::Footer::Valid);
        let again = ImageReader::open(&image).await.unwrap();
        assert_eq!(bytes(&again, whole(&again)).await, read, "the same file makes the same image");
    }
}

#[tokio::test]
async fn what_is_no_image_of_a_disk_is_refused() {
    let mut dynamic = vhd_of(&vec![0; 1 << 20]);
    let last = dynamic.len() - 512;
    dynamic[last + 63] = 3;
    let error = refused("disk.vhd", &dynamic).await;
    assert_eq!(error.kind(), ErrorKind::SourceUnsuitable);
    assert!(
        error.advice().unwrap().starts_with("qemu-img convert -f vpc -O vpc -o subformat=fixed,force_size")
    );

    let mut longer = vhd_of(&vec![0; 1 << 20]);
    longer.splice(0..0, [0; 512]);
    for content in [&longer[..], &[0; 4096], &[0; 512], &[0; 700], b"", &vhd_of(&[])] {
        assert_eq!(refused("disk.vhd", content).await.kind(), ErrorKind::SourceUnsuitable);
    }
    assert_eq!(refused("disk.raw", b"").await.kind(), ErrorKind::SourceUnsuitable);

    let folder = tempfile::tempdir().unwrap();
    let (path, image) = at(&folder, "disk.raw");
    assert_eq!(ImageReader::open(&image).await.unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::create_dir(path).unwrap();
    assert_eq!(ImageReader::open(&image).await.unwrap_err().kind(), ErrorKind::SourceUnsuitable);
}

#[tokio::test]
async fn a_file_that_is_changed_meanwhile_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let (path, image) = at(&folder, "disk.raw");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let make = |bytes: usize| {
        std::fs::write(&path, vec![7; bytes]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    };
    let changes: [&dyn Fn(); 4] = [
        &|| File::options().write(true).open(&path).unwrap().write_all_at(&[1], 0).unwrap(),
        &|| make(4096),
        &|| {
            std::fs::remove_file(&path).unwrap();
            let _another_inode = File::create(folder.path().join("x")).unwrap();
            make(1 << 20);
        },
        &|| make((1 << 20) + 1),
    ];
    for change in changes {
        make(1 << 20);
        let reader = ImageReader::open(&image).await.unwrap();
        reader.unchanged().await.unwrap();
        change();
        let error = reader.unchanged().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.why()),
            (ErrorKind::SourceUnsuitable, "it was changed while it was read")
        );
    }
    make(1 << 20);
    let reader = ImageReader::open(&image).await.unwrap();
    make(4096);
    let error = reader.read(range(8192, 16384)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.why()),
        (ErrorKind::SourceUnsuitable, "it became shorter while it was read")
    );
}

#[tokio::test]
async fn holes_are_no_data_and_the_footer_always_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, image) = at(&folder, "disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    let reader = ImageReader::open(&image).await.unwrap();
    let footer = range(64 << 20, (64 << 20) + 512);
    assert_eq!(reader.data_ranges(whole(&reader)).await.unwrap(), [footer]);
    assert_eq!(reader.data_ranges(range(0, 1 << 20)).await.unwrap(), []);

    file.write_all_at(&[1], 32 << 20).unwrap();
    let found = reader.data_ranges(whole(&reader)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[0].start() <= 32 << 20 && found[0].end() > 32 << 20 && found[0].len() <= 1 << 20);
    assert_eq!(found[1], footer);
}

#[test]
fn ranges_are_rounded_outward_and_joined() {
    let pages = |ranges: &[(u64, u64)]| whole_pages(ranges.iter().map(|(start, end)| *start..*end).collect());
    assert_eq!(pages(&[(1, 2), (3, 4), (512, 513), (1537, 1600)]), [range(0, 1024), range(1536, 2048)]);
    assert_eq!(pages(&[(5, 5), (512, 4096), (600, 700)]), [range(512, 4096)]);
    assert_eq!(whole_mib(u64::MAX - 5), None);
    assert_eq!(whole_mib(1), Some(1 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_byte_that_is_not_zero_is_in_a_data_range(
        size in 1_u64..(3 << 20),
        writes in prop::collection::vec((0_u64..(3 << 20), 1_usize..20_000), 0..8),
        from in 0_u64..6144, pages in 1_u64..6145
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, image) = at(&folder, "disk.raw");
        let file = File::create(&path).unwrap();
        for (at, length) in &writes {
            file.write_all_at(&vec![5; *length], *at).unwrap();
        }
        file.set_len(size).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let reader = ImageReader::open(&image).await.unwrap();
            let last = reader.length() / 512;
            let from = from.min(last - 1);
            let within = range(from * 512, (from + pages).min(last) * 512);
            let found = reader.data_ranges(within).await.unwrap();
            assert!(found.windows(2).all(|pair| pair[0].end() < pair[1].start()));
            assert!(found.iter().all(|data| data.intersection(within) == Some(*data)));
            for (at, byte) in (within.start()..).zip(bytes(&reader, within).await) {
                assert!(byte == 0 || found.iter().any(|data| data.start() <= at && at < data.end()), "byte {at}");
            }
        });
    }
}
