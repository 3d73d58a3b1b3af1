//! The end of the demo: the oldest and the newest point are restored to files, and the files compared with the disk.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;
use snapferry_emulator::DiskSnapshot;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::demo::{blocking, demo_error, interrupted};
use super::output::{Output, size};
use crate::error::Result;
use crate::range::PAGE;

const PIECE: u64 = 4 << 20;

/// A point that was restored to a file.
#[derive(Serialize)]
pub(super) struct Restored {
    point: String,
    file: &'static str,
    /// Bytes that the file takes on this machine; the rest are holes.
    bytes_on_disk: u64,
    pub(super) identical: bool,
}

/// A folder that is gone when the demo is.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Restores each point with the program itself, as a person would, and compares the file with its snapshot.
pub(super) async fn restore(
    from: &str,
    points: &[(String, DiskSnapshot)],
    output: Output,
    cancel: &CancellationToken,
) -> Result<Vec<Restored>> {
    let folder = Folder(std::env::temp_dir().join(format!("snapferry-demo-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).map_err(demo_error)?;
    output.line("\nsnapferry restore  makes files of the oldest and of the newest point")?;
    let mut restored = Vec::new();
    for ((point, snapshot), file) in points.iter().zip(["oldest.vhd", "newest.raw"]) {
        let path = folder.0.join(file);
        let mut command = Command::new(std::env::current_exe().map_err(demo_error)?);
        command
            .args(["restore", "--quiet", "--output", "json", "--point", point, "--to"])
            .arg(format!("file:{}", path.display()))
            .env("SNAPFERRY_FROM", from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(demo_error)?;
        let ended = tokio::select! {
            ended = child.wait() => ended.map_err(demo_error)?,
            () = cancel.cancelled() => return Err(interrupted()),
        };
        if !ended.success() {
            return Err(demo_error(format!("snapferry restore ended with {ended}")));
        }
        let (of, at) = (snapshot.clone(), path.clone());
        let identical = blocking(move || is_equal(&of, &at)).await?;
        let bytes_on_disk = on_disk(&path)?;
        let verdict = if identical { "identical" } else { "DIFFERENT" };
        output.line(&format!(
            "{:<15} {file}  a disk of {}, {} on this one: {verdict}",
            snapshot.name(),
            size(snapshot.len() - PAGE),
            size(bytes_on_disk)
        ))?;
        std::fs::remove_file(&path).map_err(demo_error)?;
        restored.push(Restored { point: point.clone(), file, bytes_on_disk, identical });
    }
    Ok(restored)
}

fn on_disk(path: &Path) -> Result<u64> {
    let known = std::fs::metadata(path).map_err(demo_error)?;
    Ok(std::os::unix::fs::MetadataExt::blocks(&known) * 512)
}

/// The file against what the emulator holds; a raw file has no footer.
fn is_equal(snapshot: &DiskSnapshot, path: &Path) -> std::io::Result<bool> {
    let file = std::fs::File::open(path)?;
    let is_raw = path.extension().is_some_and(|ending| ending == "raw");
    let length = if is_raw { snapshot.len() - PAGE } else { snapshot.len() };
    if file.metadata()?.len() != length {
        return Ok(false);
    }
    let mut at = 0;
    while at < length {
        let piece = PIECE.min(length - at);
        let mut bytes = vec![0; usize::try_from(piece).unwrap_or_default()];
        file.read_exact_at(&mut bytes, at)?;
        if snapshot.read(at, piece) != bytes {
            return Ok(false);
        }
        at += piece;
    }
    Ok(true)
}
