//! Images on this machine, before judges that this project did not write: qemu-img, and the block devices of Linux.

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(unix)]

mod judges;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use judges::Judge;
use snapferry::ErrorKind;
use snapferry::image::{Format, ImagePath, ImageReader, ImageWriter, Resumed, WriterOptions};
use snapferry::range::PageRange;

const MIB: u64 = 1 << 20;

fn image(path: &Path) -> ImagePath {
    ImagePath::parse(&format!("file:{}", path.display()), None).unwrap()
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

/// Writes all that `reader` has to `target`, holes as zeros.
async fn copy(reader: &ImageReader, target: &ImagePath, options: WriterOptions) -> PathBuf {
    let (writer, resumed) = ImageWriter::open(target, reader.length(), "copy", options).await.unwrap();
    assert_eq!(resumed, Resumed::Fresh);
    let whole = range(0, reader.length());
    if !writer.gaps_are_zero() {
        writer.zero(whole).await.unwrap();
    }
    for data in reader.data_ranges(whole).await.unwrap() {
        writer.write(data, &reader.read(data).await.unwrap()).await.unwrap();
    }
    reader.unchanged().await.unwrap();
    writer.finish().await.unwrap()
}

/// A disk with data here and there.
fn make_disk(path: &Path, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    for at in (0..bytes).step_by(7 << 17) {
        file.write_all_at(&at.to_le_bytes().repeat(700), at).unwrap();
    }
    file.set_len(bytes).unwrap();
}

#[tokio::test]
async fn qemu_reads_what_is_made_of_a_raw_file_and_what_it_makes_is_read() {
    if !judges::are_here(&[Judge::QemuImg], "that a footer made here is what another implementation reads") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    // 33 MiB is no whole number of cylinders, of whatever geometry.
    make_disk(&at("disk.raw"), 33 * MIB - 512);
    let raw = ImageReader::open(&image(&at("disk.raw"))).await.unwrap();
    copy(&raw, &image(&at("made.vhd")), WriterOptions::default()).await;
    let info = Judge::QemuImg.run(["info", "-f", "vpc", "--output=json", &text("made.vhd")]).accepted();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["virtual-size"], 33 * MIB, "its disk is as long as the footer says");
    let same =
        Judge::QemuImg.run(["compare", "-f", "vpc", "-F", "raw", &text("made.vhd"), &text("disk.raw")]);
    same.accepted();

    let convert = |options: &str, target: &str| {
        let made = Judge::QemuImg.run([
            "convert",
            "-f",
            "raw",
            "-O",
            "vpc",
            "-o",
            options,
            &text("disk.raw"),
            target,
        ]);
        made.accepted();
    };
    convert("subformat=fixed,force_size", &text("qemu.vhd"));
    // qemu-img does not round up to a whole MiB, which is a warning and no error here.
    let vhd = ImageReader::open(&image(&at("qemu.vhd"))).await.unwrap();
    assert_eq!(vhd.length(), 33 * MIB);
    copy(&vhd, &image(&at("back.raw")), WriterOptions::default()).await;
    let same =
        Judge::QemuImg.run(["compare", "-f", "raw", "-F", "raw", &text("back.raw"), &text("disk.raw")]);
    same.accepted();

    convert("subformat=dynamic", &text("dynamic.vhd"));
    let error = ImageReader::open(&image(&at("dynamic.vhd"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnsuitable);
    assert!(error.advice().unwrap().contains("subformat=fixed,force_size"));
}

/// A loop device over a file, for as long as this lives.
struct Device(PathBuf);

impl Device {
    /// A loop device needs rights that not every machine gives. Where there is none, that is said aloud.
    fn over(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["-f", "--show"]).arg(file).output();
        match made {
            Ok(made) if made.status.success() => {
                Some(Self(String::from_utf8(made.stdout).unwrap().trim().into()))
            }
            _ => {
                let rule = "#".repeat(78);
                let banner = format!(
                    "\n{rule}\n#\n#   NO LOOP DEVICE (losetup as root)\n#   NOT PROVED: that real block devices are written\n#\n{rule}\n"
                );
                // Not eprintln, which the test runner swallows when a test passes.
                std::io::Write::write_all(&mut std::io::stderr(), banner.as_bytes()).unwrap();
                None
            }
        }
    }

    fn image(&self) -> ImagePath {
        ImagePath::parse(self.0.to_str().unwrap(), None).unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        run("losetup", &["-d", self.0.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_block_device_is_written_in_place_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, backing) = (folder.path().join("disk.raw"), folder.path().join("backing"));
    make_disk(&disk, 3 * MIB);
    std::fs::write(&backing, vec![0xee; 4 << 20]).unwrap();
    let Some(device) = Device::over(&backing) else { return };
    let image_of_device = device.image();
    assert!(image_of_device.is_device() && image_of_device.format() == Format::Raw);
    assert_eq!(image_of_device.to_string(), device.0.to_str().unwrap());

    let raw = ImageReader::open(&image(&disk)).await.unwrap();
    copy(&raw, &image_of_device, WriterOptions::default()).await;
    let reader = ImageReader::open(&image_of_device).await.unwrap();
    assert_eq!(reader.length(), 4 * MIB + 512);
    let read = reader.read(range(0, reader.length())).await.unwrap().concat();
    assert!(read[..3 << 20] == std::fs::read(&disk).unwrap());
    assert!(read[3 << 20..4 << 20].iter().all(|byte| *byte == 0xee), "the rest is left alone");
    reader.unchanged().await.unwrap();

    // Ranges smaller than a block and between blocks, next to what is not on the disk yet.
    let (writer, _) =
        ImageWriter::open(&image_of_device, 3 * MIB + 512, "x", WriterOptions::default()).await.unwrap();
    let full = Bytes::from(vec![7; 1 << 20]);
    for (start, end) in [(512, 1024), (0, 128 << 10), (65_024, 200_192), (MIB - 512, MIB)] {
        writer.write(range(0, MIB), std::slice::from_ref(&full)).await.unwrap();
        writer.zero(range(start, end)).await.unwrap();
        let read = writer.read(range(0, MIB)).await.unwrap().concat();
        assert!((0..).zip(&read).all(|(at, byte)| *byte == if (start..end).contains(&at) { 0 } else { 7 }));
    }
    writer.note("kept nowhere").await.unwrap();
    let second = ImageWriter::open(&image_of_device, 3 * MIB + 512, "x", WriterOptions::default()).await;
    // Opened exclusively, it is in use by the first already before its lock is looked at.
    assert!(matches!(second.unwrap_err().kind(), ErrorKind::TargetUnsuitable | ErrorKind::LeaseHeld));
    writer.finish().await.unwrap();

    let too_large = ImageWriter::open(&image_of_device, 4 * MIB + 1024, "x", WriterOptions::default()).await;
    let error = too_large.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetUnsuitable);
    assert_eq!(error.why(), "it has 4194304 bytes, the disk has 4194816");
}

#[tokio::test]
async fn a_mounted_device_is_not_written_to_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let (backing, mount) = (folder.path().join("backing"), folder.path().join("mount"));
    std::fs::File::create(&backing).unwrap().set_len(4 << 20).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let Some(device) = Device::over(&backing) else { return };
    run("mkfs.ext4", &["-q", device.0.to_str().unwrap()]);
    run("mount", &[device.0.to_str().unwrap(), mount.to_str().unwrap()]);
    let open = async |force| {
        let options = WriterOptions { force, ..WriterOptions::default() };
        ImageWriter::open(&device.image(), 4 * MIB + 512, "x", options).await.map(drop)
    };
    let (refused, forced) = (open(false).await, open(true).await);
    run("umount", &[mount.to_str().unwrap()]);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetUnsuitable);
    assert!(error.why().contains(mount.to_str().unwrap()), "{error}");
    forced.unwrap();
    open(false).await.unwrap();
}
