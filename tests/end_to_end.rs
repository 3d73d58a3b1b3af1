//! A disk with a real file system crosses over, and programs that this project did not write judge every point:
//! qemu-img reads the image, e2fsck the file system, debugfs the files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod judges;
mod world;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use judges::{Azurite, FAR_AWAY, Judge, account_sas, container_sas};
use reqwest::Method;
use snapferry::azure::{PageBlob, Role};
use snapferry::base::points::{Point, points};
use snapferry::image::ImagePath;
use snapferry::restore::file::{FileJob, restore_to_file};
use snapferry::restore::point::Which;
use snapferry_emulator::{Disk, DiskSnapshot};
use tempfile::TempDir;
use world::{MIB, World, noise};

const DISK: u64 = 64 * MIB;
const GROWN: u64 = 96 * MIB;
/// Where the file system begins: a disk has a partition table before it.
const PARTITION: u64 = MIB;
const BLOCK: u64 = 4096;
/// In Azurite.
const CONTAINER: &str = "points";

/// A raw disk with a file system, and what must be in it.
struct Machine {
    folder: TempDir,
    disk: PathBuf,
    /// What each file holds; none for one that was removed.
    files: BTreeMap<String, Option<Vec<u8>>>,
}

/// What was on the disk when a snapshot was taken.
struct Moment {
    snapshot: DiskSnapshot,
    raw: PathBuf,
    files: BTreeMap<String, Option<Vec<u8>>>,
    point: Point,
    /// Bytes that changed since the snapshot before, that were cleared, and that were sent.
    changed: u64,
    cleared: u64,
    sent: u64,
}

impl Machine {
    /// A file system with small, large, empty, sparse and oddly named files.
    fn new() -> Self {
        let folder = judges::folder();
        let disk = folder.path().join("disk.raw");
        let mut files = BTreeMap::new();
        for (seed, name) in (1..).zip(["kept", "removed", "trimmed", "replaced"]) {
            files.insert(format!("/data/{name}"), noise(seed, (seed + 1) * MIB + 77));
        }
        for number in 0..60 {
            files.insert(format!("/etc/many/{number}"), noise(number, number * 97));
        }
        files.insert("/etc/hostname".to_owned(), b"web-1\n".to_vec());
        files.insert("/data/sparse".to_owned(), [vec![0; 3 << 20], noise(9, 100), vec![0; 3 << 20]].concat());
        files.insert("/a blank/and größer".to_owned(), b"odd\n".to_vec());
        let tree = folder.path().join("tree");
        for (name, bytes) in &files {
            let path = tree.join(name.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let files = files.into_iter().map(|(name, bytes)| (name, Some(bytes))).collect();
        let machine = Self { folder, disk, files };
        machine.partition(DISK);
        let (tree, disk) = (tree.to_str().unwrap(), machine.disk.to_str().unwrap());
        let offset = format!("offset={PARTITION}");
        let size = format!("{}k", partition_bytes(DISK) / 1024);
        let block = BLOCK.to_string();
        Judge::Mke2fs
            .run(["-q", "-t", "ext4", "-b", &block, "-E", &offset, "-d", tree, disk, &size])
            .accepted();
        machine
    }

    /// Makes the raw disk `length` bytes long, with one partition.
    fn partition(&self, length: u64) {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.disk).unwrap();
        file.set_len(length).unwrap();
        let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap().to_le_bytes();
        let linux = [0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff];
        let entry = [&linux[..], &sectors(PARTITION), &sectors(partition_bytes(length))].concat();
        file.seek(SeekFrom::Start(446)).unwrap();
        file.write_all(&[&entry[..], &[0; 48], &[0x55, 0xaa]].concat()).unwrap();
    }

    /// The file system as the tools of ext4 are told of it.
    fn file_system(disk: &Path) -> String {
        format!("{}?offset={PARTITION}", disk.display())
    }

    /// Changes the file system: writes, replaces (`Some`) and removes (`None`) files. Makes folders that are new.
    fn change(&mut self, changes: Vec<(&str, Option<Vec<u8>>)>) {
        let mut commands = Vec::new();
        for (number, (name, content)) in changes.into_iter().enumerate() {
            if self.files.get(name).is_some_and(Option::is_some) {
                commands.push(format!("rm \"{name}\""));
            }
            if let Some(content) = &content {
                let folder = name.rsplit_once('/').unwrap().0;
                if !self.files.keys().any(|known| known.starts_with(&format!("{folder}/"))) {
                    commands.push(format!("mkdir \"{folder}\""));
                }
                let path = self.folder.path().join(format!("new-{number}"));
                std::fs::write(&path, content).unwrap();
                commands.push(format!("write {} \"{name}\"", path.display()));
            }
            self.files.insert(name.to_owned(), content);
        }
        let script = self.folder.path().join("commands");
        std::fs::write(&script, commands.join("\n") + "\n").unwrap();
        let disk = Self::file_system(&self.disk);
        let verdict = Judge::Debugfs.run(["-w", "-f", script.to_str().unwrap(), &disk]).accepted();
        // A command that failed shows there alone.
        assert_eq!(verdict.stderr.lines().count(), 1, "{verdict:?}");
    }

    /// Removes a file as a guest does that discards: its blocks are given back to the disk. Returns them.
    fn trim(&mut self, name: &str) -> Vec<Range<u64>> {
        let disk = Self::file_system(&self.disk);
        let blocks = Judge::Debugfs.run(["-R", &format!("blocks {name}"), &disk]).accepted().text();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in blocks.split_whitespace().map(|block| block.parse::<u64>().unwrap()) {
            let start = PARTITION + block * BLOCK;
            match runs.last_mut() {
                Some(run) if run.end == start => run.end += BLOCK,
                _ => runs.push(start..start + BLOCK),
            }
        }
        self.change(vec![(name, None)]);
        let mut file = OpenOptions::new().write(true).open(&self.disk).unwrap();
        for run in &runs {
            file.seek(SeekFrom::Start(run.start)).unwrap();
            file.write_all(&vec![0; usize::try_from(run.end - run.start).unwrap()]).unwrap();
        }
        runs
    }

    /// Takes a snapshot, keeps what it must hold, and copies it over.
    async fn snapshot(&self, world: &World, disk: &Disk, before: Option<&Moment>, target: &str) -> Moment {
        assert_consistent(&self.disk);
        let snapshot = disk.snapshot();
        let raw = self.folder.path().join(format!("kept-{}", snapshot.time()));
        std::fs::copy(&self.disk, &raw).unwrap();
        let previous = before.map(|before| before.snapshot.grant());
        let step = world::step(&snapshot.grant(), previous.as_deref(), target);
        let report = world.run(&step).await.unwrap();
        Moment {
            snapshot,
            raw,
            files: self.files.clone(),
            point: report.point,
            changed: report.totals.bytes_changed,
            cleared: report.totals.bytes_cleared,
            sent: report.bytes_sent,
        }
    }

    /// A full copy and two differences, the second one after the disk grew.
    async fn live(&mut self, world: &World, disk: &Disk, target: &str) -> Vec<Moment> {
        let first = self.snapshot(world, disk, None, target).await;
        assert!(first.sent < DISK / 2, "what is free is not sent");

        let trimmed = self.trim("/data/trimmed");
        for run in &trimmed {
            disk.clear(run.start, run.end - run.start).unwrap();
        }
        self.change(vec![
            ("/data/removed", None),
            ("/data/replaced", Some(noise(11, 2 * MIB))),
            ("/data/new", Some(noise(12, MIB + 1))),
            ("/etc/many/7", None),
            ("/etc/hostname", Some(b"web-2\n".to_vec())),
            ("/new folder/inside", Some(noise(13, 5000))),
        ]);
        let written = disk.apply_raw(&self.disk).unwrap();
        let second = self.snapshot(world, disk, Some(&first), target).await;
        // Of the file's last block only the sectors with data were there to be cleared.
        let cleared = first.files["/data/trimmed"].as_ref().unwrap().len().next_multiple_of(512) as u64;
        assert_eq!((second.changed, second.cleared), (written, cleared), "only changes travel");

        disk.grow(GROWN).unwrap();
        self.partition(GROWN);
        if Judge::Resize2fs.is_here() {
            let size = format!("{}k", partition_bytes(GROWN) / 1024);
            Judge::Resize2fs.run([&Self::file_system(&self.disk), &size]).accepted();
        }
        self.change(vec![
            ("/data/kept", None),
            ("/data/later", Some(noise(14, 9 * MIB + 5))),
            ("/data/new", Some(b"short now\n".to_vec())),
            ("/third/file", Some(vec![0; 1 << 20])),
        ]);
        // Something behind the partition, next to where the footer goes.
        let mut file = OpenOptions::new().write(true).open(&self.disk).unwrap();
        file.seek(SeekFrom::Start(GROWN - 512)).unwrap();
        file.write_all(&noise(15, 512)).unwrap();
        disk.apply_raw(&self.disk).unwrap();
        let third = self.snapshot(world, disk, Some(&second), target).await;
        assert!(third.sent < DISK / 2, "only changes travel");
        vec![first, second, third]
    }
}

/// The partition ends before the disk does, as where a second partition table is kept.
fn partition_bytes(disk: u64) -> u64 {
    disk - PARTITION - MIB
}

fn assert_consistent(disk: &Path) {
    Judge::E2fsck.run(["-fn", &Machine::file_system(disk)]).accepted();
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Reads what `url` names into a file, not through the code on trial.
async fn download(url: &str, length: u64, path: &Path) {
    const PIECE: u64 = 8 * MIB;
    let mut file = File::create(path).unwrap();
    let mut at = 0;
    while at < length {
        let end = (at + PIECE).min(length);
        let range = format!("bytes={at}-{}", end - 1);
        let reply = world::raw(Method::GET, url, &[("x-ms-range", &range)], Vec::new()).await;
        assert_eq!(reply.status(), 206, "{range}");
        assert_eq!(reply.headers()["content-range"], format!("bytes {at}-{}/{length}", end - 1));
        file.write_all(&reply.bytes().await.unwrap()).unwrap();
        at = end;
    }
}

/// The last page of a file.
fn footer(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    let mut footer = Vec::new();
    file.seek(SeekFrom::End(-512)).unwrap();
    file.read_to_end(&mut footer).unwrap();
    footer
}

/// All judges on one point: it is the image that was kept when its snapshot was taken.
fn judge(moment: &Moment, vhd: &Path) {
    let length = moment.snapshot.len();
    assert_eq!(std::fs::metadata(vhd).unwrap().len(), length);
    assert!(footer(vhd) == moment.snapshot.read(length - 512, 512), "the footer is not the source's");

    let info = Judge::QemuImg.run(["info", "-f", "vpc", "--output", "json", path_text(vhd)]).accepted();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info["format"], &info["virtual-size"]), (&"vpc".into(), &(length - 512).into()));
    let raw = path_text(&moment.raw);
    Judge::QemuImg.run(["compare", "-f", "vpc", "-F", "raw", path_text(vhd), raw]).accepted();

    let restored = vhd.with_extension("raw");
    Judge::QemuImg
        .run(["convert", "-f", "vpc", "-O", "raw", path_text(vhd), path_text(&restored)])
        .accepted();
    assert_consistent(&restored);
    for (name, content) in &moment.files {
        let disk = Machine::file_system(&restored);
        let verdict = Judge::Debugfs.run(["-R", &format!("cat \"{name}\""), &disk]).accepted();
        match content {
            Some(content) => assert!(verdict.stdout == *content, "{name} differs: {}", verdict.stderr),
            None => assert!(verdict.stderr.contains("File not found"), "{name} is still there"),
        }
    }
    std::fs::remove_file(restored).unwrap();
}

/// Restores a point to files of both forms, and lets all judges at them.
async fn restore_and_judge(from: &str, moment: &Moment, folder: &Path) {
    for name in ["restored.vhd", "restored.img"] {
        let path = folder.join(name);
        let job = FileJob {
            from: world::url(Role::Source, from),
            which: Which::Named(moment.point.point.clone()),
            to: ImagePath::parse(&format!("file:{}", path_text(&path)), None).unwrap(),
            differential: false,
            overwrite: false,
            force: false,
            state_file: None,
        };
        let (progress, cancel) = Default::default();
        restore_to_file(&job, &world::client(), &world::settings(), &progress, &cancel).await.unwrap();
        if path.extension().is_some_and(|ending| ending == "vhd") {
            judge(moment, &path);
        } else {
            let raw = path_text(&moment.raw);
            Judge::QemuImg.run(["compare", "-f", "raw", "-F", "raw", path_text(&path), raw]).accepted();
            assert_consistent(&path);
        }
        std::fs::remove_file(path).unwrap();
    }
}

/// The list of points that the base blob shows is that of the steps that were made.
async fn assert_listed(target: &str, moments: &[Moment]) {
    let blob = PageBlob::connect(world::url(Role::Target, target), &world::client()).unwrap();
    let listed = points(&blob).await.unwrap();
    let listed: Vec<_> =
        listed.iter().map(|point| (point.point.as_str(), point.source_time.as_str(), point.length)).collect();
    let made: Vec<_> = moments
        .iter()
        .map(|moment| (moment.point.point.as_str(), moment.snapshot.time(), moment.snapshot.len()))
        .collect();
    assert_eq!(listed, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_of_a_real_disk_is_the_disk_of_its_day() {
    let needed = [Judge::QemuImg, Judge::Mke2fs, Judge::Debugfs, Judge::E2fsck];
    if !judges::are_here(&needed, "that a disk with a real file system arrives whole") {
        return;
    }
    let world = World::new().await;
    let mut machine = Machine::new();
    let vhd = machine.folder.path().join("original.vhd");
    let fixed = ["-o", "subformat=fixed,force_size=on"];
    let (raw, original) = (path_text(&machine.disk), path_text(&vhd));
    Judge::QemuImg
        .run([&["convert", "-f", "raw", "-O", "vpc"], &fixed[..], &[raw, original]].concat())
        .accepted();
    let disk = world.source.load_vhd("disk", &vhd).unwrap();
    let target = world.target_url();
    let moments = machine.live(&world, &disk, &target).await;

    assert_listed(&target, &moments).await;
    for (number, moment) in moments.iter().enumerate() {
        let point = machine.folder.path().join("point.vhd");
        let url = format!("{target}&snapshot={}", moment.point.point);
        download(&url, moment.snapshot.len(), &point).await;
        judge(moment, &point);
        restore_and_judge(&target, moment, machine.folder.path()).await;
        if number == 0 {
            assert!(footer(&point) == footer(&vhd), "the footer is not the one that qemu-img made");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_others_wrote_holds_every_point_of_a_real_disk() {
    let needed = [Judge::Azurite, Judge::QemuImg, Judge::Mke2fs, Judge::Debugfs, Judge::E2fsck];
    if !judges::are_here(&needed, "that points are made in a service that this project did not write") {
        return;
    }
    let azurite = Azurite::start().await;
    let container = format!("{}/{CONTAINER}", azurite.account_url());
    let create = format!("{container}?restype=container&{}", account_sas("c", FAR_AWAY));
    assert_eq!(world::raw(Method::PUT, &create, &[], Vec::new()).await.status(), 201);
    let target = format!("{container}/base?{}", container_sas(CONTAINER, "rcwdl", FAR_AWAY));

    let world = World::new().await;
    let mut machine = Machine::new();
    // With a footer of the emulator's, which qemu-img thus judges, too.
    let disk = world.source.load_raw("disk", &machine.disk).unwrap();
    let moments = machine.live(&world, &disk, &target).await;

    assert_listed(&target, &moments).await;
    for moment in &moments {
        let point = machine.folder.path().join("point.vhd");
        // Azurite lets no snapshot be read by a SAS of its container.
        let sas = account_sas("r", FAR_AWAY);
        let url = format!("{container}/base?{sas}&snapshot={}", moment.point.point);
        download(&url, moment.snapshot.len(), &point).await;
        judge(moment, &point);
        let all = format!("{container}/base?{}", account_sas("rl", FAR_AWAY));
        restore_and_judge(&all, moment, machine.folder.path()).await;
    }
}
